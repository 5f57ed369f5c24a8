//! An answer read from an HTTP reply, for all protocols: [`Streaming`] reads an event stream, [`Whole`] a JSON reply. The
//! protocol is a [`Decode`]; [`Pipe`] runs it over the bytes.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::ProviderError;
use super::http::{ReplyBody, Transport};
use super::provider::{Chunk, Generation};

mod output;
mod pipe;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use output::{Decode, Output, json, no_answer, tool_requested, truncated};
pub(crate) use pipe::Pipe;

/// How long an answer that may be complete waits for the event that confirms it.
pub(crate) const LINGER: Duration = Duration::from_millis(1500);

/// An answer read from an event stream. Every `next` is cancel safe.
#[derive(Debug)]
pub(crate) struct Streaming<D> {
    pub(crate) pipe: Pipe<D>,
    body: ReplyBody,
    /// The end of the [`LINGER`] time, once it runs.
    linger_until: Option<Instant>,
    drained: bool,
}

impl<D: Decode> Streaming<D> {
    pub(crate) fn new(body: ReplyBody, decoder: D) -> Self {
        Self { pipe: Pipe::new(decoder), body, linger_until: None, drained: false }
    }

    /// Reads the next bytes of the body into the pipe.
    pub(crate) async fn pump(&mut self) {
        if self.pipe.decoder.lingering() {
            let until = *self.linger_until.get_or_insert_with(|| Instant::now() + LINGER);
            match timeout_at(until, self.body.chunk()).await {
                Ok(Ok(Some(bytes))) => self.pipe.push(&bytes),
                Ok(Ok(None)) => self.pipe.finish(),
                // The answer is complete: an error after it does no harm.
                Ok(Err(_)) | Err(_) => self.pipe.end(),
            }
            return;
        }
        match self.body.chunk().await {
            Ok(Some(bytes)) => self.pipe.push(&bytes),
            Ok(None) => self.pipe.finish(),
            Err(error) => self.pipe.fail(error),
        }
    }
}

#[async_trait]
impl<D: Decode> Generation for Streaming<D> {
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        loop {
            if self.pipe.next_is_finish() && !self.drained {
                self.drained = true;
                self.body.drain().await;
            }
            match self.pipe.pop() {
                Some(Ok(chunk)) => return Some(Ok(chunk)),
                Some(Err(error)) => return Some(Err(self.body.redact(error))),
                None if self.pipe.ended() => return None,
                None => self.pump().await,
            }
        }
    }

    /// These protocols have no stop request: closing the connection stops the generation.
    async fn cancel(self: Box<Self>) {}
}

/// An answer that arrived as one JSON document.
#[derive(Debug)]
pub(crate) struct Whole(Output);

impl Whole {
    /// Reads the answer with `read`, which must end with a finish. Errors are redacted for the log.
    pub(crate) fn read(
        transport: &Transport,
        read: impl FnOnce(&mut Output) -> Result<(), ProviderError>,
    ) -> Result<Box<dyn Generation>, ProviderError> {
        let mut out = Output::default();
        read(&mut out).map_err(|error| transport.redact(error))?;
        Ok(Box::new(Self(out)))
    }
}

#[async_trait]
impl Generation for Whole {
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        self.0.chunks.pop_front()
    }

    async fn cancel(self: Box<Self>) {}
}
