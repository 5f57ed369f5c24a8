//! What a protocol's decoder reads and writes: [`Decode`], the chunks it yields, the errors decoders share.

use std::collections::VecDeque;

use serde::de::DeserializeOwned;

use crate::llm::sse::SseEvent;
use crate::llm::{Chunk, ErrorClass, ProviderError};
use crate::usage::{FinishReason, TokenUsage};

/// No answer is longer: a provider that never stops would fill the memory and the store.
pub(super) const MAX_ANSWER_BYTES: usize = 4 << 20;

/// No call takes more tokens: a provider that says so is mistaken.
const MAX_TOKENS: u64 = 1_000_000_000;

/// The reader of one protocol's events.
pub(crate) trait Decode: Send {
    /// Takes one event.
    fn event(&mut self, event: &SseEvent, out: &mut Output) -> Result<(), ProviderError>;

    /// The stream ended cleanly, or nothing more came while it lingered: finishes, or says what is missing.
    fn end(&mut self, out: &mut Output) -> Result<(), ProviderError>;

    /// The answer could be complete: [`Decode::end`] is called if nothing more comes for [`LINGER`].
    fn lingering(&self) -> bool {
        false
    }
}

/// What a decoder has read and nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(super) chunks: VecDeque<Result<Chunk, ProviderError>>,
    pub(super) text_bytes: usize,
    /// Nothing follows what is in the queue.
    pub(super) ended: bool,
    /// It ended with a finish, not with an error.
    pub(super) finished: bool,
}

impl Output {
    /// Text to append; an empty one is left out.
    pub(crate) fn delta(&mut self, text: &str) {
        self.text_bytes += text.len();
        if !text.is_empty() {
            self.chunk(Chunk::Delta(text.to_owned()));
        }
    }

    /// Other text in place of all so far.
    pub(crate) fn replace(&mut self, text: String) {
        self.text_bytes += text.len();
        self.chunk(Chunk::Replace(text));
    }

    /// What the call used. Zeros mean that no model ran, and numbers beyond all reason are cut.
    pub(crate) fn usage(&mut self, input: u64, cached: u64, output: u64) {
        let [input, cached, output] = [input, cached, output].map(|tokens| tokens.min(MAX_TOKENS));
        if input + output > 0 {
            self.chunk(Chunk::Usage(TokenUsage { input, cached: cached.min(input), output, estimated: false }));
        }
    }

    /// Any chunk but text and the end.
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

/// Reads JSON; what cannot be read is a fault of the protocol. The text itself is not quoted: it may be an answer.
pub(crate) fn json<T: DeserializeOwned>(text: &[u8]) -> Result<T, ProviderError> {
    serde_json::from_slice(text).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        ProviderError::new(
            ErrorClass::Protocol,
            format!("not the JSON of this protocol at {place}: {:?}", error.classify()),
        )
    })
}

/// The error of a stream that ended before its answer.
pub(crate) fn truncated() -> ProviderError {
    ProviderError::new(ErrorClass::Truncated, "the stream ended before the answer did")
}

/// The error of a whole reply that is JSON, but not an answer.
pub(crate) fn no_answer() -> ProviderError {
    ProviderError::new(ErrorClass::Protocol, "the reply holds no answer")
}

/// The error of an answer that asks for a tool: none was offered.
pub(crate) fn tool_requested() -> ProviderError {
    ProviderError::new(ErrorClass::Protocol, "the model asked for a tool although none was offered")
}
