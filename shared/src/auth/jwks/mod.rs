//! The keys of a JWKS document: cached, read again from time to time, and once more when a token names a key nobody
//! knows. Whatever goes wrong with reading, the keys read before stay.
//!
//! All reading is done by one task, so callers that come and go neither multiply nor cancel a fetch.

mod keys;
mod source;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::token::Algorithm;
use crate::lifecycle::Lifecycle;

pub use source::{JwksError, JwksSource, check_jwks_file};

use keys::KeySet;
use source::Reader;

/// Two reads are never closer together than this, whatever tokens ask for.
pub const MIN_INTERVAL: Duration = Duration::from_secs(30);
/// A read that takes longer has failed.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// How long a caller waits for the read it asked for: a little longer than the read may take.
const WAIT_LIMIT: Duration = Duration::from_secs(6);

/// The cached keys.
#[derive(Debug)]
pub(super) struct Jwks {
    keys: RwLock<Arc<KeySet>>,
    gate: Mutex<Gate>,
    /// Wakes the reader for a read that a caller has claimed at the gate.
    wake: Notify,
    /// Counts the reads that ended, well or not.
    reads: watch::Sender<u64>,
}

/// Lets one read through at a time and one per [`MIN_INTERVAL`].
#[derive(Debug, Default)]
struct Gate {
    last: Option<Instant>,
    in_flight: bool,
}

impl Gate {
    /// Claims a read, if one may begin now.
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
    /// Starts reading; the first read of a URL begins at once in the background, a file is read before this returns.
    ///
    /// # Errors
    /// Where a file holds no usable key, or no HTTP client can be made.
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

    /// Has any read ever given a key?
    pub(super) fn is_loaded(&self) -> bool {
        !self.keys.read().is_empty()
    }

    /// The key of this kind under this id. Where there is none, the document is read again first, if it has not been
    /// read lately.
    pub(super) async fn key(&self, algorithm: Algorithm, kid: Option<&str>) -> Option<DecodingKey> {
        if let Some(key) = self.find(algorithm, kid) {
            return Some(key);
        }
        // Subscribed before the gate is asked, so that the end of a running read is not missed.
        let mut reads = self.reads.subscribe();
        if self.ask_for_read() {
            let _ended = tokio::time::timeout(WAIT_LIMIT, reads.changed()).await;
        }
        self.find(algorithm, kid)
    }

    fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Option<DecodingKey> {
        self.keys.read().find(algorithm, kid).cloned()
    }

    /// Whether a read is under way now, perhaps because of this call.
    fn ask_for_read(&self) -> bool {
        let mut gate = self.gate.lock();
        if gate.claim(Instant::now()) {
            self.wake.notify_one();
        }
        gate.in_flight
    }

    /// The reader: at every interval, and whenever a caller has claimed a read.
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
                // A wake-up that an interval has already served, or an interval too close to a wake-up.
                due = due.max(Instant::now() + MIN_INTERVAL);
                continue;
            }
            let Some(ok) = drain.run_until_cancelled(self.read(&reader)).await else { return };
            due = Instant::now() + if ok { refresh } else { MIN_INTERVAL };
        }
    }

    /// Reads once and says whether there are keys from it.
    async fn read(&self, reader: &Reader) -> bool {
        let outcome = match tokio::time::timeout(READ_LIMIT, reader.read()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(JwksError::TimedOut),
        };
        let ok = outcome.is_ok();
        match outcome {
            Ok(keys) => *self.keys.write() = Arc::new(keys),
            Err(error) => tracing::warn!(%error, "cannot read the JWKS; the keys read before stay in use"),
        }
        self.gate.lock().in_flight = false;
        self.reads.send_modify(|reads| *reads += 1);
        ok
    }
}

#[cfg(test)]
mod tests;
