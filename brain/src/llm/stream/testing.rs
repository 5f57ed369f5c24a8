//! Runs a decoder over a recorded stream in every way a network may deliver it.

use super::{Decode, Pipe};
use crate::llm::{Chunk, ErrorClass};
use crate::usage::{FinishReason, TokenUsage};

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
