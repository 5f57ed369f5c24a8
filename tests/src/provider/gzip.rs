//! A body in gzip, written as it comes.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Compresses one body.
#[derive(Debug)]
pub(super) struct Gzip(GzEncoder<Vec<u8>>);

impl Gzip {
    pub(super) fn new() -> Self {
        Self(GzEncoder::new(Vec::new(), Compression::fast()))
    }

    /// These bytes, compressed so that a client can read all of them now.
    pub(super) fn wrap(&mut self, bytes: &[u8]) -> Vec<u8> {
        // A vector takes everything.
        let _written = self.0.write_all(bytes).and_then(|()| self.0.flush());
        std::mem::take(self.0.get_mut())
    }

    /// The end of the body.
    pub(super) fn end(self) -> Vec<u8> {
        self.0.finish().unwrap_or_default()
    }
}
