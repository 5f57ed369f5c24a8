//! One call of a provider: its limits, its text, what it used.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::event::AnswerEvent;
use crate::ledger::CallFinish;
use crate::llm::endpoint::{Admission, Verdict};
use crate::llm::meter::CallOutcome;
use crate::llm::model::Model;
use crate::llm::tokens::TokenCounter;
use crate::llm::{Chunk, ErrorClass, Generation, Prompt, ProviderError};
use crate::usage::FinishReason;
use crate::usage::TokenUsage;

/// How long a provider may take to be told to stop.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// A call to be made.
pub(super) struct Call<'a> {
    pub(super) model: &'a Model,
    pub(super) prompt: &'a Prompt,
    /// The tokens of the prompt, as far as chatbox can tell.
    pub(super) input_estimate: u64,
    /// When the answer as a whole must have ended.
    pub(super) end_by: Instant,
    pub(super) stop: &'a CancellationToken,
    /// Takes the pieces.
    pub(super) out: &'a mpsc::Sender<AnswerEvent>,
}

/// What is to be said before a call's first text.
pub(super) type Opening<'a> = Option<&'a Arc<Model>>;

/// How a call ended. The provider's connection is still to be closed by [`close`].
pub(super) struct Called {
    pub(super) ending: Ending,
    pub(super) tally: Tally,
    pub(super) generation: Option<Box<dyn Generation>>,
}

/// How a call ended.
pub(super) enum Ending {
    Finished(FinishReason),
    Stopped,
    Failed(ProviderError),
}

/// What is counted during a call.
#[derive(Debug)]
pub(super) struct Tally {
    counter: TokenCounter,
    input_estimate: u64,
    /// The provider's word on the prompt, before the end.
    input: Option<TokenUsage>,
    /// The provider's word on the whole call.
    reported: Option<TokenUsage>,
    /// The provider took nothing: it refused, or was not reached.
    unused: Option<TokenUsage>,
    text: String,
    pub(super) restarts: u32,
    pub(super) first_token: Option<Duration>,
    pub(super) total: Duration,
}

impl Tally {
    fn new(counter: TokenCounter, input_estimate: u64) -> Self {
        Self {
            counter,
            input_estimate,
            input: None,
            reported: None,
            unused: None,
            text: String::new(),
            restarts: 0,
            first_token: None,
            total: Duration::ZERO,
        }
    }

    /// Some text of this call was handed out.
    pub(super) fn spoke(&self) -> bool {
        self.first_token.is_some()
    }

    /// The provider's own numbers, else an estimate that says so.
    pub(super) fn usage(&self) -> TokenUsage {
        if let Some(usage) = self.reported.or(self.unused) {
            return usage;
        }
        let input = self.input.unwrap_or(TokenUsage { input: self.input_estimate, ..TokenUsage::default() });
        TokenUsage { output: self.counter.count(&self.text), estimated: true, ..input }
    }

    /// For the meter.
    pub(super) fn outcome(&self, finish: CallFinish, error: Option<ErrorClass>) -> CallOutcome {
        CallOutcome { usage: self.usage(), finish, error, first_token: self.first_token, total: self.total }
    }
}

impl Call<'_> {
    /// Makes the call and hands its pieces on until it ends, fails, or is stopped.
    pub(super) async fn make(self, admission: &mut Admission, opening: Opening<'_>) -> Called {
        let begun = Instant::now();
        let mut tally = Tally::new(self.model.counter, self.input_estimate);
        let first_text_by = begun + self.model.policy.first_token;
        if self.stop.is_cancelled() {
            // Before anything was asked.
            tally.unused = Some(TokenUsage::default());
            return Called { ending: Ending::Stopped, tally, generation: None };
        }
        let started = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            started = timeout_at(first_text_by.min(self.end_by), self.model.provider.generate(self.prompt)) => Some(started),
        };
        let mut generation = None;
        let ending = match started {
            None => Ending::Stopped,
            Some(Err(_)) => Ending::Failed(self.out_of_time()),
            Some(Ok(Err(error))) => {
                // What was refused or never arrived used nothing; whether a request that broke off did, nobody knows.
                let refused = error.status.is_some_and(|status| matches!(status, 400..=499 | 503 | 529));
                tally.unused = (refused || error.unsent).then(TokenUsage::default);
                Ending::Failed(error)
            }
            Some(Ok(Ok(started))) => {
                let running = generation.insert(started);
                self.read(running.as_mut(), &mut tally, admission, opening, begun, first_text_by).await
            }
        };
        tally.total = begun.elapsed();
        match &ending {
            Ending::Finished(_) => admission.tell(Verdict::Healthy),
            Ending::Failed(error) => admission.tell(error.verdict()),
            Ending::Stopped => {}
        }
        Called { ending, tally, generation }
    }

    async fn read(
        &self,
        generation: &mut dyn Generation,
        tally: &mut Tally,
        admission: &mut Admission,
        opening: Opening<'_>,
        begun: Instant,
        first_text_by: Instant,
    ) -> Ending {
        // Whose it is becomes clear with the first text.
        let mut conversation = None;
        loop {
            let by = if tally.spoke() { self.end_by } else { first_text_by.min(self.end_by) };
            // Asked first: a stream that always has something ready would never let the timer have its say.
            if Instant::now() >= by {
                return Ending::Failed(self.out_of_time());
            }
            let chunk = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ending::Stopped,
                chunk = timeout_at(by, generation.next()) => chunk,
            };
            let piece = match chunk {
                Err(_) => return Ending::Failed(self.out_of_time()),
                Ok(None) => return Ending::Failed(ProviderError::new(ErrorClass::Truncated, "no more and no end")),
                Ok(Some(Err(error))) => return Ending::Failed(error),
                Ok(Some(Ok(chunk))) => match chunk {
                    Chunk::Delta(text) => {
                        tally.text.push_str(&text);
                        AnswerEvent::Delta(text)
                    }
                    Chunk::Replace(text) => {
                        tally.text.push_str(&text);
                        tally.restarts += 1;
                        AnswerEvent::Replace(text)
                    }
                    Chunk::Conversation(id) if !tally.spoke() => {
                        conversation = Some(id);
                        continue;
                    }
                    Chunk::Conversation(id) => AnswerEvent::Conversation(id),
                    Chunk::InputTokens { input, cached } => {
                        tally.input = Some(TokenUsage { input, cached, ..TokenUsage::default() });
                        continue;
                    }
                    Chunk::Usage(usage) => {
                        tally.reported = Some(usage);
                        continue;
                    }
                    Chunk::Finish(reason) => return Ending::Finished(reason),
                },
            };
            let mut before = [None, None];
            if !tally.spoke() {
                tally.first_token = Some(begun.elapsed());
                admission.speaks();
                before = [opening.cloned().map(AnswerEvent::Model), conversation.take().map(AnswerEvent::Conversation)];
            }
            for piece in before.into_iter().flatten().chain([piece]) {
                if !self.hand_out(piece).await {
                    return Ending::Stopped;
                }
            }
        }
    }

    /// `false`: nobody wants it any more.
    async fn hand_out(&self, piece: AnswerEvent) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            sent = self.out.send(piece) => sent.is_ok(),
        }
    }

    fn out_of_time(&self) -> ProviderError {
        if Instant::now() < self.end_by {
            let detail = format!("no text within {:?}", self.model.policy.first_token);
            return ProviderError::new(ErrorClass::Timeout, detail);
        }
        // The time was the answer's: whoever happened to be asked last is not to blame.
        let should_retry = Some(false);
        ProviderError { should_retry, ..ProviderError::new(ErrorClass::Timeout, "the answer as a whole took too long") }
    }
}

/// Tells the provider that nobody listens any more, where there is something to tell, and closes its connection.
pub(super) async fn close(generation: Option<Box<dyn Generation>>) {
    if let Some(generation) = generation
        && tokio::time::timeout(CANCEL_PATIENCE, generation.cancel()).await.is_err()
    {
        tracing::debug!("the provider did not take the stop in time; its connection is closed");
    }
}
