//! What the streams of all providers have in common. [`Pipe`] turns bytes into chunks without any input or output, so that
//! it can be tested at every byte; [`Streaming`] reads a body into it.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::http::{Body, Transport};
use super::sse::{self, Event};
use super::{Chunk, ErrorClass, Generation, ProviderError, TokenUsage};
use crate::session::entry::FinishReason;

/// No answer is longer: a provider that never stops would fill the memory and the store.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// No call takes more tokens: a provider that says so is mistaken.
const MAX_TOKENS: u64 = 1_000_000_000;

/// How long an answer that could be complete waits for the event that makes it certain.
pub(crate) const LINGER: Duration = Duration::from_millis(1500);

/// The reader of one protocol's events.
pub(crate) trait Decode: Send {
    /// Takes one event.
    fn event(&mut self, event: &Event, out: &mut Output) -> Result<(), ProviderError>;

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
    chunks: VecDeque<Result<Chunk, ProviderError>>,
    text_bytes: usize,
    /// Nothing follows what is in the queue.
    ended: bool,
    /// It ended with a finish, not with an error.
    finished: bool,
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

    fn fail(&mut self, error: ProviderError) {
        self.chunks.push_back(Err(error));
        self.ended = true;
    }
}

/// Bytes in, chunks out. After a finish or an error nothing more comes.
#[derive(Debug)]
pub(crate) struct Pipe<D> {
    sse: sse::Decoder,
    /// Public to the providers: it holds what a later call needs, such as ids.
    pub(crate) decoder: D,
    out: Output,
}

impl<D: Decode> Pipe<D> {
    pub(crate) fn new(decoder: D) -> Self {
        Self { sse: sse::Decoder::default(), decoder, out: Output::default() }
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

    /// The body ended cleanly. What stands there without its final blank line counts if it can be read.
    pub(crate) fn finish(&mut self) {
        if let (Some(event), false) = (self.sse.finish(), self.out.ended) {
            match self.decoder.event(&event, &mut self.out) {
                Err(error) if error.class != ErrorClass::Protocol => self.out.fail(error),
                _ => {}
            }
        }
        self.end();
    }

    /// Nothing more will come.
    pub(crate) fn end(&mut self) {
        if !self.out.ended
            && let Err(error) = self.decoder.end(&mut self.out)
        {
            self.out.fail(error);
        }
    }

    /// The body broke.
    pub(crate) fn fail(&mut self, error: ProviderError) {
        if !self.out.ended {
            self.out.fail(error);
        }
    }

    /// The next chunk that is ready.
    pub(crate) fn pop(&mut self) -> Option<Result<Chunk, ProviderError>> {
        self.out.chunks.pop_front()
    }

    /// All is read; what is left is in the queue.
    pub(crate) fn ended(&self) -> bool {
        self.out.ended
    }

    /// All is read, and the answer is whole.
    pub(crate) fn finished(&self) -> bool {
        self.out.finished
    }

    fn next_is_finish(&self) -> bool {
        matches!(self.out.chunks.front(), Some(Ok(Chunk::Finish(_))))
    }
}

/// An answer read from a body. Every `next` may be dropped and called again without losing anything.
#[derive(Debug)]
pub(crate) struct Streaming<D> {
    pub(crate) pipe: Pipe<D>,
    body: Body,
    /// When lingering ends.
    linger_until: Option<Instant>,
    drained: bool,
}

impl<D: Decode> Streaming<D> {
    pub(crate) fn new(body: Body, decoder: D) -> Self {
        Self { pipe: Pipe::new(decoder), body, linger_until: None, drained: false }
    }

    /// Reads one piece of the body into the pipe.
    pub(crate) async fn pump(&mut self) {
        if self.pipe.decoder.lingering() {
            let until = *self.linger_until.get_or_insert_with(|| Instant::now() + LINGER);
            match timeout_at(until, self.body.chunk()).await {
                Ok(Ok(Some(bytes))) => self.pipe.push(&bytes),
                Ok(Ok(None)) => self.pipe.finish(),
                // The answer itself is whole: whatever breaks now breaks nothing.
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

    /// These protocols have no stop call: closing the connection is the way.
    async fn cancel(self: Box<Self>) {}
}

/// An answer that came as a whole.
#[derive(Debug)]
pub(crate) struct Whole(Output);

impl Whole {
    /// Reads it with `read`, which must end with a finish. What the provider says is made fit for the log.
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

#[cfg(test)]
pub(crate) mod testing {
    //! Runs a decoder over a recorded stream in every way a network may deliver it.

    use super::*;

    pub(crate) type Read = Vec<Result<Chunk, ErrorClass>>;

    /// Everything a decoder makes of these pieces, adjacent text joined, errors by their class.
    pub(crate) fn read<'a, D: Decode>(decoder: D, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
        let mut pipe = Pipe::new(decoder);
        pieces.into_iter().for_each(|piece| pipe.push(piece));
        pipe.finish();
        let mut read = Read::new();
        while let Some(chunk) = pipe.pop() {
            match (read.last_mut(), chunk.map_err(|error| error.class)) {
                (Some(Ok(Chunk::Delta(text))), Ok(Chunk::Delta(more))) => text.push_str(&more),
                (_, chunk) => read.push(chunk),
            }
        }
        read
    }

    pub(crate) fn delta(text: &str) -> Result<Chunk, ErrorClass> {
        Ok(Chunk::Delta(text.to_owned()))
    }

    pub(crate) fn finish(reason: FinishReason) -> Result<Chunk, ErrorClass> {
        Ok(Chunk::Finish(reason))
    }

    pub(crate) fn usage(input: u64, output: u64) -> Result<Chunk, ErrorClass> {
        Ok(Chunk::Usage(TokenUsage { input, cached: 0, output, estimated: false }))
    }

    /// The stream (written with LF) gives `expected` whatever its line ends, split at every byte, with comments and
    /// unknown events between its own.
    pub(crate) fn assert_reads<D: Decode>(make: impl Fn() -> D, stream: &str, noise: &str, expected: &Read) {
        let noisy = stream.replace("\n\n", &format!("\n\n: keep-alive\n\n{noise}"));
        for ending in ["\n", "\r\n", "\r"] {
            for stream in [stream, noise_before(&noisy, noise).as_str()] {
                let stream = stream.replace('\n', ending);
                let bytes = stream.as_bytes();
                for split in 0..=bytes.len() {
                    let (head, tail) = bytes.split_at(split);
                    assert_eq!(&read(make(), [head, tail]), expected, "split at {split} with {ending:?}: {stream}");
                }
                assert_eq!(&read(make(), bytes.chunks(1)), expected, "byte by byte with {ending:?}");
            }
        }
    }

    fn noise_before(stream: &str, noise: &str) -> String {
        format!(": first\n\n{noise}{stream}")
    }

    /// Cut after each of its events but the last `complete_from`.., the stream is truncated, and what was text before
    /// stays text.
    pub(crate) fn assert_truncated_before<D: Decode>(make: impl Fn() -> D, stream: &str, complete_from: usize) {
        let events: Vec<&str> = stream.split_inclusive("\n\n").collect();
        for cut in 0..complete_from {
            let read = read(make(), [events[..cut].concat().as_bytes()]);
            assert_eq!(read.last(), Some(&Err(ErrorClass::Truncated)), "cut after {cut} events: {read:?}");
            let before = &read[..read.len() - 1];
            assert!(before.iter().all(|chunk| matches!(chunk, Ok(chunk) if !matches!(chunk, Chunk::Finish(_)))));
        }
        for complete in complete_from..=events.len() {
            let read = read(make(), [events[..complete].concat().as_bytes()]);
            assert!(matches!(read.last(), Some(Ok(Chunk::Finish(_)))), "whole after {complete} events: {read:?}");
        }
    }
}
