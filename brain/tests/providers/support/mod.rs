//! What the tests of providers share: a model at the fake provider, and a question to it whose answer is read as the brain
//! reads it.

pub(crate) mod raw;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chatbox_brain::ledger::{self, Reservation};
use chatbox_brain::llm::answer::{AnswerEvent, AnswerOutcome, AnswerRequest, Answering};
use chatbox_brain::llm::catalog::Catalog;
use chatbox_brain::llm::conversation::Conversation;
use chatbox_brain::llm::endpoint::Endpoints;
use chatbox_brain::llm::meter::{CallDenied, CallOutcome, Meter, PlannedCall};
use chatbox_brain::llm::model::Model;
use chatbox_brain::llm::{Chunk, ErrorClass, Generation, Prompt, PromptTurn, Provider, ProviderError, SharedProvider};
use chatbox_brain::usage::FinishReason;
use chatbox_brain::usage::TokenUsage;
use chatbox_shared::clock::{Clock, SystemClock};
use chatbox_shared::failure::ErrorCode;
use chatbox_shared::ids::{SessionId, UserId};
use chatbox_tests::provider::Call;
use serde_json::{Value, json};

/// The wire protocols.
pub(crate) const KINDS: [&str; 3] = ["openai", "anthropic", "dify"];

/// The variable of the provider key. Every build sets it, and its value is not secret.
pub(crate) const KEY_ENV: &str = "CARGO_PKG_NAME";

/// A model of this kind at the fake provider, with short limits. `more` overrides its settings.
pub(crate) fn model(kind: &str, url: &str, more: Value) -> Arc<Model> {
    let mut config = json!({"id": "m", "provider": kind, "base_url": url, "api_key_env": KEY_ENV});
    if kind != "dify" {
        config["model"] = json!("model-x");
    }
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let calls = json!({"connect_timeout_ms": 1000, "first_token_timeout_ms": 5000, "idle_timeout_ms": 5000,
        "total_timeout_ms": 20000, "max_retries": 2, "max_retry_after_ms": 1000, "max_concurrent": 100,
        "max_queued": 100, "breaker_failures": 1000, "breaker_open_ms": 1000});
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let models: Vec<_> = serde_json::from_value(json!([config])).unwrap();
    let catalog =
        Catalog::build(&models, &serde_json::from_value(calls).unwrap(), "", &clock, &Endpoints::default()).unwrap();
    Arc::clone(catalog.default_model())
}

/// A short conversation.
pub(crate) fn prompt() -> Prompt {
    Prompt {
        system: Some("Be brief.".into()),
        turns: vec![PromptTurn::user("What is this?"), PromptTurn::assistant("A cat."), PromptTurn::user("Sure?")],
        user: "u-hash".into(),
        request_id: "call-7".into(),
        ..Prompt::default()
    }
}

/// The parts of an answer.
#[derive(Debug, Default, Clone)]
pub(crate) struct Read {
    /// The text at the end.
    pub(crate) text: String,
    /// Texts that were replaced by others.
    pub(crate) replaced: Vec<String>,
    /// Input tokens, all and cached, as `Chunk::InputTokens` reports them.
    pub(crate) input: Option<(u64, u64)>,
    /// The last usage.
    pub(crate) usage: Option<TokenUsage>,
    /// The id of the conversation at the provider.
    pub(crate) conversation: Option<String>,
}

/// Asks as the brain does, with all retries, and reads up to the end or the error.
pub(crate) async fn ask_with(model: &Model, prompt: &Prompt) -> (Read, Result<FinishReason, ProviderError>) {
    let recorder = Arc::new(RecordingProvider {
        inner: Arc::clone(&model.provider),
        request_id: prompt.request_id.clone(),
        seen: Arc::default(),
        failed: Arc::default(),
    });
    let recorded = Model {
        provider: Arc::clone(&recorder) as SharedProvider,
        system_prompt: prompt.system.clone(),
        ..model.clone()
    };
    let conversation = Conversation {
        turns: prompt.turns.clone(),
        user: prompt.user.clone(),
        conversations: prompt.conversation.iter().map(|id| (model.id.clone(), id.clone())).collect(),
    };
    let mut answering = Answering::start(AnswerRequest {
        session: SessionId::generate(),
        user: "u".into(),
        models: vec![Arc::new(recorded)],
        conversation: Arc::new(conversation),
        meter: Arc::new(Uncounted),
    });
    let (mut text, mut replaced, mut outcome) = (String::new(), Vec::new(), None);
    while let Some(piece) = answering.next().await {
        assert!(outcome.is_none(), "nothing follows the end");
        match piece {
            AnswerEvent::Model(_) | AnswerEvent::Conversation(_) => {}
            AnswerEvent::Delta(more) => text += &more,
            AnswerEvent::Replace(other) => replaced.push(std::mem::replace(&mut text, other)),
            AnswerEvent::End(end) => outcome = Some(end.outcome),
        }
    }
    let read = Read { text, replaced, ..recorder.seen.lock().unwrap().clone() };
    let failed = recorder.failed.lock().unwrap().take();
    match outcome.unwrap() {
        AnswerOutcome::Finished(reason) => (read, Ok(reason)),
        AnswerOutcome::Stopped => {
            (read, Err(ProviderError::new(ErrorClass::Protocol, "an answer was stopped without a request")))
        }
        // A time limit of the brain's own is no error of the provider.
        AnswerOutcome::Failed(fault) if fault.code == ErrorCode::ProviderTimeout => {
            (read, Err(failed.unwrap_or(ProviderError::new(ErrorClass::Timeout, "a time limit of the brain"))))
        }
        AnswerOutcome::Failed(_) => (read, Err(failed.unwrap())),
    }
}

/// Passes every call on to another provider, under one request id, and records the last error and the facts that an answer
/// has besides its text.
struct RecordingProvider {
    inner: SharedProvider,
    request_id: String,
    seen: Arc<Mutex<Read>>,
    failed: Arc<Mutex<Option<ProviderError>>>,
}

/// The answer to one call of a [`RecordingProvider`].
struct RecordingGeneration {
    inner: Box<dyn Generation>,
    seen: Arc<Mutex<Read>>,
    failed: Arc<Mutex<Option<ProviderError>>>,
}

#[async_trait]
impl Provider for RecordingProvider {
    async fn generate(&self, prompt: &Prompt) -> Result<Box<dyn Generation>, ProviderError> {
        self.failed.lock().unwrap().take();
        let prompt = Prompt { request_id: self.request_id.clone(), ..prompt.clone() };
        let inner = self.inner.generate(&prompt).await.inspect_err(|error| {
            *self.failed.lock().unwrap() = Some(error.clone());
        })?;
        Ok(Box::new(RecordingGeneration { inner, seen: Arc::clone(&self.seen), failed: Arc::clone(&self.failed) }))
    }
}

#[async_trait]
impl Generation for RecordingGeneration {
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        let item = self.inner.next().await;
        let mut seen = self.seen.lock().unwrap();
        match &item {
            Some(Ok(Chunk::InputTokens { input, cached })) => seen.input = Some((*input, *cached)),
            Some(Ok(Chunk::Usage(usage))) => seen.usage = Some(*usage),
            Some(Ok(Chunk::Conversation(id))) => seen.conversation = Some(id.clone()),
            Some(Err(error)) => *self.failed.lock().unwrap() = Some(error.clone()),
            _ => {}
        }
        item
    }

    async fn cancel(self: Box<Self>) {
        self.inner.cancel().await;
    }
}

/// A meter that allows every call.
struct Uncounted;

#[async_trait]
impl Meter for Uncounted {
    fn plan(&self, planned: PlannedCall<'_>) -> Reservation {
        let call = ledger::Call {
            id: planned.id,
            user: UserId::new("u"),
            session: SessionId::generate(),
            purpose: ledger::Purpose::Answer,
            seq: 1,
            attempt: 1,
            model_id: planned.model.id.clone(),
            provider: planned.model.kind.as_str().to_owned(),
            started_at: SystemClock.now(),
        };
        let expires_at = call.started_at;
        Reservation { call, tokens: 0, cost: 0, input_estimate: planned.input_estimate, expires_at }
    }

    async fn begin(&self, _: &Reservation) -> Result<(), CallDenied> {
        Ok(())
    }

    async fn withdraw(&self, _: &Reservation) {}

    async fn end(&self, _: &Reservation, _: &Model, _: CallOutcome) {}
}

/// [`ask_with`] the short conversation.
pub(crate) async fn ask(model: &Model) -> (Read, Result<FinishReason, ProviderError>) {
    ask_with(model, &prompt()).await
}

/// The calls that request an answer.
pub(crate) fn chats(calls: &[Call]) -> Vec<&Call> {
    calls.iter().filter(|call| call.is_chat()).collect()
}
