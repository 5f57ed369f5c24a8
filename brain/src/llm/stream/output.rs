//! What a protocol's decoder reads and writes: [`Decode`], the chunks it yields, the errors decoders share.

use std::collections::VecDeque;

use serde::de::DeserializeOwned;

use crate::llm::sse::SseEvent;
use crate::llm::{Chunk, ErrorClass, ProviderError};
use crate::usage::{FinishReason, TokenUsage};

/// The longest answer: a provider that never stops would fill the memory and the store.
pub(super) const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The largest token count that is believed.
const MAX_TOKENS: u64 = 1_000_000_000;

/// The reader of one protocol's events.
pub(crate) trait Decode: Send {
    /// Takes one event.
    fn event(&mut self, event: &SseEvent, out: &mut Output) -> Result<(), ProviderError>;

    /// The stream ended, or the [`LINGER`](super::LINGER) time passed: finishes, or returns what is missing.
    fn end(&mut self, out: &mut Output) -> Result<(), ProviderError>;

    /// Whether the answer may be complete: [`Decode::end`] is called if nothing arrives for [`LINGER`](super::LINGER).
    fn lingering(&self) -> bool {
        false
    }
}

/// The chunks a decoder has produced and the consumer has not taken.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(super) chunks: VecDeque<Result<Chunk, ProviderError>>,
    pub(super) text_bytes: usize,
    /// No chunk follows those in the queue.
    pub(super) ended: bool,
    /// The answer ended with a finish, not with an error.
    pub(super) finished: bool,
}

impl Output {
    /// Text to append; empty text is dropped.
    pub(crate) fn delta(&mut self, text: &str) {
        self.text_bytes += text.len();
        if !text.is_empty() {
            self.chunk(Chunk::Delta(text.to_owned()));
        }
    }

    /// Text that replaces all text so far.
    pub(crate) fn replace(&mut self, text: String) {
        self.text_bytes += text.len();
        self.chunk(Chunk::Replace(text));
    }

    /// The usage of the call. Zeros mean that no model ran; absurd numbers are capped.
    pub(crate) fn usage(&mut self, input: u64, cached: u64, output: u64) {
        let [input, cached, output] = [input, cached, output].map(|tokens| tokens.min(MAX_TOKENS));
        if input + output > 0 {
            self.chunk(Chunk::Usage(TokenUsage { input, cached: cached.min(input), output, estimated: false }));
        }
    }

    /// Any other chunk.
    pub(crate) fn chunk(&mut self, chunk: Chunk) {
        self.chunks.push_back(Ok(chunk));
    }

    /// The end of the answer.
    pub(crate) fn finish(&mut self, reason: FinishReason) {
        self.chunk(Chunk::Finish(reason));
        self.ended = true;
        self.finished = true;
    }

    /// An error, which ends the answer.
    pub(super) fn fail(&mut self, error: ProviderError) {
        self.chunks.push_back(Err(error));
        self.ended = true;
    }
}

/// Parses JSON; an error is a protocol violation. The text is not quoted: it may contain the answer.
pub(crate) fn json<T: DeserializeOwned>(text: &[u8]) -> Result<T, ProviderError> {
    serde_json::from_slice(text).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        ProviderError::new(
            ErrorClass::Protocol,
            format!("not the JSON of this protocol at {place}: {:?}", error.classify()),
        )
    })
}

/// The error of a stream that ended before the answer did.
pub(crate) fn truncated() -> ProviderError {
    ProviderError::new(ErrorClass::Truncated, "the stream ended before the answer did")
}

/// The error of a JSON reply without an answer.
pub(crate) fn no_answer() -> ProviderError {
    ProviderError::new(ErrorClass::Protocol, "the reply holds no answer")
}

/// The error of an answer that calls a tool although none was offered.
pub(crate) fn tool_requested() -> ProviderError {
    ProviderError::new(ErrorClass::Protocol, "the model asked for a tool although none was offered")
}
