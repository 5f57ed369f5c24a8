//! Bytes in, chunks out, without any I/O: so a test can split a stream at every byte.

use super::output::{Decode, MAX_ANSWER_BYTES, Output};
use crate::llm::sse::SseDecoder;
use crate::llm::{Chunk, ErrorClass, ProviderError};

/// Bytes in, chunks out. No chunk follows a finish or an error.
#[derive(Debug)]
pub(crate) struct Pipe<D> {
    sse: SseDecoder,
    /// Visible to the providers: it holds what a later request needs, such as ids.
    pub(crate) decoder: D,
    out: Output,
}

impl<D: Decode> Pipe<D> {
    pub(crate) fn new(decoder: D) -> Self {
        Self { sse: SseDecoder::default(), decoder, out: Output::default() }
    }

    /// Takes the next bytes of the body.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let mut events = Vec::new();
        let fits = self.sse.push(bytes, &mut events);
        for event in &events {
            if self.out.ended {
                return;
            }
            if let Err(error) = self.decoder.event(event, &mut self.out) {
                self.out.fail(error);
            } else if self.out.text_bytes > MAX_ANSWER_BYTES && !self.out.ended {
                let detail = format!("the answer is longer than {MAX_ANSWER_BYTES} bytes");
                self.out.fail(ProviderError::new(ErrorClass::Protocol, detail));
            }
        }
        if let (Err(error), false) = (fits, self.out.ended) {
            self.out.fail(ProviderError::new(ErrorClass::Protocol, error.to_string()));
        }
    }

    /// The body ended. A last event without its final blank line counts if it can be parsed.
    pub(crate) fn finish(&mut self) {
        if let (Some(event), false) = (self.sse.finish(), self.out.ended) {
            match self.decoder.event(&event, &mut self.out) {
                Err(error) if error.class != ErrorClass::Protocol => self.out.fail(error),
                _ => {}
            }
        }
        self.end();
    }

    /// Ends the stream.
    pub(crate) fn end(&mut self) {
        if !self.out.ended
            && let Err(error) = self.decoder.end(&mut self.out)
        {
            self.out.fail(error);
        }
    }

    /// Fails the stream.
    pub(crate) fn fail(&mut self, error: ProviderError) {
        if !self.out.ended {
            self.out.fail(error);
        }
    }

    /// The next chunk, where one is ready.
    pub(crate) fn pop(&mut self) -> Option<Result<Chunk, ProviderError>> {
        self.out.chunks.pop_front()
    }

    /// Whether the stream has ended; chunks may still be queued.
    pub(crate) fn ended(&self) -> bool {
        self.out.ended
    }

    /// Whether the stream has ended with a complete answer.
    pub(crate) fn finished(&self) -> bool {
        self.out.finished
    }

    /// The next chunk that is ready is the end of the answer.
    pub(super) fn next_is_finish(&self) -> bool {
        matches!(self.out.chunks.front(), Some(Ok(Chunk::Finish(_))))
    }
}
