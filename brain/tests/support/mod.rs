//! A model at the provider double, and a question to it: what the tests of providers share.

use std::sync::Arc;

use chatbox_brain::llm::catalog::{Catalog, Model};
use chatbox_brain::llm::{Chunk, Prompt, PromptTurn, ProviderError, TokenUsage};
use chatbox_brain::session::entry::FinishReason;
use chatbox_shared::clock::{Clock, SystemClock};
use chatbox_tests::provider::Call;
use serde_json::{Value, json};

/// The protocols.
pub(crate) const KINDS: [&str; 3] = ["openai", "anthropic", "dify"];

/// The key of all models here: a variable every build has, whose value is no secret.
pub(crate) const KEY_ENV: &str = "CARGO_PKG_NAME";

/// A model of this kind at the double, with short limits. `more` overrides its settings.
pub(crate) fn model(kind: &str, url: &str, more: Value) -> Arc<Model> {
    let mut config = json!({"id": "m", "provider": kind, "base_url": url, "api_key_env": KEY_ENV});
    if kind != "dify" {
        config["model"] = json!("model-x");
    }
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let calls = json!({"connect_timeout_ms": 1000, "first_token_timeout_ms": 5000, "idle_timeout_ms": 5000,
        "total_timeout_ms": 20000, "max_retries": 2, "max_retry_after_ms": 1000});
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let models: Vec<_> = serde_json::from_value(json!([config])).unwrap();
    let catalog = Catalog::build(&models, &serde_json::from_value(calls).unwrap(), "", &clock).unwrap();
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

/// What an answer told.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// The text at the end.
    pub(crate) text: String,
    /// Texts that were replaced by others.
    pub(crate) replaced: Vec<String>,
    /// What `InputTokens` told: all and cached.
    pub(crate) input: Option<(u64, u64)>,
    /// The last usage.
    pub(crate) usage: Option<TokenUsage>,
    /// The provider's conversation.
    pub(crate) conversation: Option<String>,
}

impl Read {
    fn take(&mut self, chunk: Chunk) -> Option<FinishReason> {
        match chunk {
            Chunk::Delta(text) => self.text += &text,
            Chunk::Replace(text) => self.replaced.push(std::mem::replace(&mut self.text, text)),
            Chunk::InputTokens { input, cached } => self.input = Some((input, cached)),
            Chunk::Usage(usage) => self.usage = Some(usage),
            Chunk::Conversation(id) => self.conversation = Some(id),
            Chunk::Finish(reason) => return Some(reason),
        }
        None
    }
}

/// Asks and reads to the end, whichever it is.
pub(crate) async fn ask_with(model: &Model, prompt: &Prompt) -> (Read, Result<FinishReason, ProviderError>) {
    let mut read = Read::default();
    let mut generation = match model.provider.generate(prompt).await {
        Ok(generation) => generation,
        Err(error) => return (read, Err(error)),
    };
    loop {
        match generation.next().await.unwrap() {
            Ok(chunk) => {
                if let Some(reason) = read.take(chunk) {
                    assert!(generation.next().await.is_none(), "nothing follows a finish");
                    return (read, Ok(reason));
                }
            }
            Err(error) => {
                assert!(generation.next().await.is_none(), "nothing follows an error");
                return (read, Err(error));
            }
        }
    }
}

/// [`ask_with`] the short conversation.
pub(crate) async fn ask(model: &Model) -> (Read, Result<FinishReason, ProviderError>) {
    ask_with(model, &prompt()).await
}

/// The requests for answers among these.
pub(crate) fn chats(calls: &[Call]) -> Vec<&Call> {
    calls.iter().filter(|call| call.is_chat()).collect()
}
