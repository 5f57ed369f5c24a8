//! The cached keys of a JWKS document. They are refreshed at an interval, and when a token names an unknown key. If a read
//! fails, the keys of the last good read stay in use.
//!
//! One task does all reads, so that callers neither multiply nor cancel a fetch.

mod source;
mod keys;
mod error;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::token::Algorithm;
use crate::lifecycle::Lifecycle;

pub use error::JwksError;
pub use source::{JwksSource, check_jwks_file};

use keys::KeySet;
use source::Reader;

/// Minimal time between two reads.
pub const MIN_INTERVAL: Duration = Duration::from_secs(30);
/// Time limit of a read.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// How long a caller waits for the read it requested: a little longer than [`READ_LIMIT`].
const WAIT_LIMIT: Duration = Duration::from_secs(6);

/// The cached keys.
#[derive(Debug)]
pub(super) struct Jwks {
    keys: RwLock<Arc<KeySet>>,
    gate: Mutex<Gate>,
    /// Wakes the reader for a read that a caller claimed at the gate.
    wake: Notify,
    /// Counts finished reads, failed ones too.
    reads: watch::Sender<u64>,
}

/// Allows one read at a time, and one per [`MIN_INTERVAL`].
#[derive(Debug, Default)]
struct Gate {
    last: Option<Instant>,
    in_flight: bool,
}

impl Gate {
    /// Claims a read if one may begin now.
    fn claim(&mut self, now: Instant) -> bool {
        let too_soon = self.last.is_some_and(|last| now.duration_since(last) < MIN_INTERVAL);
        if self.in_flight || too_soon {
            return false;
        }
        self.in_flight = true;
        self.last = Some(now);
        true
    }
}

impl Jwks {
    /// Starts the reader. A file is read before this returns; the first read of a URL begins in the background.
    ///
    /// # Errors
    /// Where a file contains no usable key, or no HTTP client can be made.
    pub(super) fn start(source: &JwksSource, refresh: Duration, lifecycle: &Lifecycle) -> Result<Arc<Self>, JwksError> {
        let reader = Reader::new(source)?;
        let keys = match source {
            JwksSource::File(path) => source::read_file(path)?,
            JwksSource::Url(_) => KeySet::default(),
        };
        let jwks = Arc::new(Self {
            keys: RwLock::new(Arc::new(keys)),
            gate: Mutex::default(),
            wake: Notify::new(),
            reads: watch::Sender::new(0),
        });
        let drain = lifecycle.draining().clone();
        lifecycle.spawn(Arc::clone(&jwks).keep_fresh(reader, refresh.max(MIN_INTERVAL), drain));
        Ok(jwks)
    }

    /// True if any read has found a key.
    pub(super) fn is_loaded(&self) -> bool {
        !self.keys.read().is_empty()
    }

    /// The key for this algorithm with this id. An unknown key causes a read first, at most one per [`MIN_INTERVAL`].
    pub(super) async fn key(&self, algorithm: Algorithm, kid: Option<&str>) -> Option<DecodingKey> {
        if let Some(key) = self.find(algorithm, kid) {
            return Some(key);
        }
        // Subscribe before asking the gate, so that the end of a running read is not missed.
        let mut reads = self.reads.subscribe();
        if self.ask_for_read() {
            let _ended = tokio::time::timeout(WAIT_LIMIT, reads.changed()).await;
        }
        self.find(algorithm, kid)
    }

    fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Option<DecodingKey> {
        self.keys.read().find(algorithm, kid).cloned()
    }

    /// Requests a read. True if a read is running now.
    fn ask_for_read(&self) -> bool {
        let mut gate = self.gate.lock();
        if gate.claim(Instant::now()) {
            self.wake.notify_one();
        }
        gate.in_flight
    }

    /// The reader: reads at every interval, and when a caller has claimed a read.
    async fn keep_fresh(self: Arc<Self>, reader: Reader, refresh: Duration, drain: CancellationToken) {
        let mut due = Instant::now();
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep_until(due) => {
                    let _claimed = self.gate.lock().claim(Instant::now());
                }
                () = self.wake.notified() => {}
            }
            if !self.gate.lock().in_flight {
                // The interval already served this wake-up, or ended too soon after the last read.
                due = due.max(Instant::now() + MIN_INTERVAL);
                continue;
            }
            let Some(ok) = drain.run_until_cancelled(self.read(&reader)).await else { return };
            due = Instant::now() + if ok { refresh } else { MIN_INTERVAL };
        }
    }

    /// Reads once. True if the read found keys.
    async fn read(&self, reader: &Reader) -> bool {
        let outcome = match tokio::time::timeout(READ_LIMIT, reader.read()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(JwksError::TimedOut),
        };
        let ok = outcome.is_ok();
        match outcome {
            Ok(keys) => *self.keys.write() = Arc::new(keys),
            Err(error) => tracing::warn!(%error, "cannot read the JWKS; the previous keys stay in use"),
        }
        self.gate.lock().in_flight = false;
        self.reads.send_modify(|reads| *reads += 1);
        ok
    }
}

#[cfg(test)]
mod tests;
