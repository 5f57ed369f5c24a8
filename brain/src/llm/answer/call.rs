//! One call of a provider: its time limits, its text, its usage.

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

/// Time limit of the provider's stop request.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// A call before it is made.
pub(super) struct Call<'a> {
    pub(super) model: &'a Model,
    pub(super) prompt: &'a Prompt,
    /// chatbox's estimate of the prompt's tokens.
    pub(super) input_estimate: u64,
    /// The deadline of the whole answer.
    pub(super) end_by: Instant,
    pub(super) stop: &'a CancellationToken,
    /// Receives the events.
    pub(super) out: &'a mpsc::Sender<AnswerEvent>,
}

/// The model to announce before the call's first text; `None` where its text is already on display.
pub(super) type Opening<'a> = Option<&'a Arc<Model>>;

/// A call that has ended. Its connection is still open until [`close`].
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

/// What a call counts: usage, text, times.
#[derive(Debug)]
pub(super) struct Tally {
    counter: TokenCounter,
    input_estimate: u64,
    /// The prompt's tokens as reported before the end of the stream.
    input: Option<TokenUsage>,
    /// The usage of the whole call as reported.
    reported: Option<TokenUsage>,
    /// Zero usage: the provider rejected the request or was not reached.
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

    /// Whether text of this call was emitted.
    pub(super) fn has_text(&self) -> bool {
        self.first_token.is_some()
    }

    /// Counts a chunk, and returns the event that the reader gets, if there is one.
    fn count(&mut self, chunk: Chunk) -> Option<AnswerEvent> {
        match chunk {
            Chunk::Delta(text) => {
                self.text.push_str(&text);
                Some(AnswerEvent::Delta(text))
            }
            Chunk::Replace(text) => {
                self.text.push_str(&text);
                self.restarts += 1;
                Some(AnswerEvent::Replace(text))
            }
            Chunk::Conversation(id) => Some(AnswerEvent::Conversation(id)),
            Chunk::InputTokens { input, cached } => {
                self.input = Some(TokenUsage { input, cached, ..TokenUsage::default() });
                None
            }
            Chunk::Usage(usage) => {
                self.reported = Some(usage);
                None
            }
            Chunk::Finish(_) => None,
        }
    }

    /// The reported usage; an estimate, marked as one, where none was reported.
    pub(super) fn usage(&self) -> TokenUsage {
        if let Some(usage) = self.reported.or(self.unused) {
            return usage;
        }
        let input = self.input.unwrap_or(TokenUsage { input: self.input_estimate, ..TokenUsage::default() });
        TokenUsage { output: self.counter.count(&self.text), estimated: true, ..input }
    }

    /// The outcome that the meter records.
    pub(super) fn outcome(&self, finish: CallFinish, error: Option<ErrorClass>) -> CallOutcome {
        CallOutcome { usage: self.usage(), finish, error, first_token: self.first_token, total: self.total }
    }
}

impl Call<'_> {
    /// Makes the call and emits its events until it ends, fails or is stopped.
    pub(super) async fn make(self, admission: &mut Admission, opening: Opening<'_>) -> Called {
        let begun = Instant::now();
        let mut tally = Tally::new(self.model.counter, self.input_estimate);
        let first_text_by = begun + self.model.policy.first_token;
        if self.stop.is_cancelled() {
            // No request was made yet.
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
                // A rejected request or one that was never sent used nothing. After a connection broke the usage is
                // unknown and gets estimated.
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

    /// Reads the stream and emits its events until it ends, fails or is stopped.
    async fn read(
        &self,
        generation: &mut dyn Generation,
        tally: &mut Tally,
        admission: &mut Admission,
        opening: Opening<'_>,
        begun: Instant,
        first_text_by: Instant,
    ) -> Ending {
        // Held back until the first text, which decides whether this call becomes the answer.
        let mut conversation = None;
        loop {
            let by = if tally.has_text() { self.end_by } else { first_text_by.min(self.end_by) };
            let chunk = match self.next_chunk(generation, by).await {
                Ok(chunk) => chunk,
                Err(ending) => return ending,
            };
            let event = match chunk {
                Chunk::Finish(reason) => return Ending::Finished(reason),
                Chunk::Conversation(id) if !tally.has_text() => {
                    conversation = Some(id);
                    continue;
                }
                chunk => tally.count(chunk),
            };
            let Some(event) = event else { continue };
            let mut before = [None, None];
            if !tally.has_text() {
                tally.first_token = Some(begun.elapsed());
                admission.first_text_arrived();
                before = [opening.cloned().map(AnswerEvent::Model), conversation.take().map(AnswerEvent::Conversation)];
            }
            for event in before.into_iter().flatten().chain([event]) {
                if !self.emit(event).await {
                    return Ending::Stopped;
                }
            }
        }
    }

    /// The next chunk of the stream; `Err`: the call has ended before it.
    async fn next_chunk(&self, generation: &mut dyn Generation, by: Instant) -> Result<Chunk, Ending> {
        // Checked before reading: a stream that is always ready would starve the timer.
        if Instant::now() >= by {
            return Err(Ending::Failed(self.out_of_time()));
        }
        let chunk = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Ending::Stopped),
            chunk = timeout_at(by, generation.next()) => chunk,
        };
        match chunk {
            Err(_) => Err(Ending::Failed(self.out_of_time())),
            Ok(None) => {
                let error = ProviderError::new(ErrorClass::Truncated, "the stream ended without a finish");
                Err(Ending::Failed(error))
            }
            Ok(Some(Err(error))) => Err(Ending::Failed(error)),
            Ok(Some(Ok(chunk))) => Ok(chunk),
        }
    }

    /// Emits an event; `false` once the answer is stopped or has no consumer.
    async fn emit(&self, event: AnswerEvent) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            sent = self.out.send(event) => sent.is_ok(),
        }
    }

    fn out_of_time(&self) -> ProviderError {
        if Instant::now() < self.end_by {
            let detail = format!("no text within {:?}", self.model.policy.first_token);
            return ProviderError::new(ErrorClass::Timeout, detail);
        }
        // The deadline of the whole answer passed, which says nothing about this provider: neither a retry nor the
        // circuit breaker should count it.
        let should_retry = Some(false);
        ProviderError { should_retry, ..ProviderError::new(ErrorClass::Timeout, "the answer as a whole took too long") }
    }
}

/// Cancels the generation, with the protocol's stop request where there is one, and closes its connection.
pub(super) async fn close(generation: Option<Box<dyn Generation>>) {
    if let Some(generation) = generation
        && tokio::time::timeout(CANCEL_PATIENCE, generation.cancel()).await.is_err()
    {
        tracing::debug!("the stop request timed out; closing the provider's connection");
    }
}
