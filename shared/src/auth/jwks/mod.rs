//! The cached keys of a JWKS document. They are refreshed at an interval, and when a token names an unknown key. A read that
//! succeeds replaces all keys, also by none: the issuer has withdrawn them. If reads fail, the keys of the last good read
//! stay in use for a limited time, because a withdrawal cannot be seen meanwhile.
//!
//! One task does all reads, so that callers neither multiply nor cancel a fetch. It is critical: without it, a withdrawn key
//! would be accepted for ever.

mod source;
mod keys;
mod error;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use parking_lot::{Mutex, RwLock};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::token::{Algorithm, TokenError};
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

/// Where the public keys are, and how long they are valid.
#[derive(Debug, Clone)]
pub struct JwksOptions {
    /// The document.
    pub source: JwksSource,
    /// The time between two reads.
    pub refresh: Duration,
    /// How long reads may fail until the keys of the last good read are no longer used.
    pub max_stale: Duration,
    /// Shows for how many seconds reads have failed; 0 after a good read.
    pub stale_seconds: Gauge,
}

/// The cached keys.
#[derive(Debug)]
pub(super) struct Jwks {
    state: RwLock<State>,
    max_stale: Duration,
    stale_seconds: Gauge,
    gate: Mutex<Gate>,
    /// Wakes the reader for a read that a caller claimed at the gate.
    wake: Notify,
    /// Counts finished reads, failed ones too.
    reads: watch::Sender<u64>,
}

/// What the reads have found.
#[derive(Debug)]
struct State {
    /// The keys of the last good read; `None` before the first one.
    keys: Option<KeySet>,
    /// The end of the first failed read after the last good one.
    failing_since: Option<Instant>,
}

impl State {
    /// The keys, unless reads have failed for `max_stale`.
    fn usable(&self, max_stale: Duration) -> Option<&KeySet> {
        let is_stale = self.failing_for().is_some_and(|failing| failing >= max_stale);
        self.keys.as_ref().filter(|_| !is_stale)
    }

    fn failing_for(&self) -> Option<Duration> {
        self.failing_since.map(|since| since.elapsed())
    }
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
    pub(super) fn start(options: &JwksOptions, lifecycle: &Lifecycle) -> Result<Arc<Self>, JwksError> {
        let reader = Reader::new(&options.source)?;
        let keys = match &options.source {
            JwksSource::File(path) => Some(source::read_usable_file(path)?),
            JwksSource::Url(_) => None,
        };
        let jwks = Arc::new(Self {
            state: RwLock::new(State { keys, failing_since: None }),
            max_stale: options.max_stale,
            stale_seconds: options.stale_seconds.clone(),
            gate: Mutex::default(),
            wake: Notify::new(),
            reads: watch::Sender::new(0),
        });
        let drain = lifecycle.draining().clone();
        lifecycle.critical("jwks", Arc::clone(&jwks).keep_fresh(reader, options.refresh.max(MIN_INTERVAL), drain));
        Ok(jwks)
    }

    /// True if the document was read, and not too long ago.
    pub(super) fn is_usable(&self) -> bool {
        self.state.read().usable(self.max_stale).is_some()
    }

    /// The key for this algorithm with this id. An unknown key causes a read first, at most one per [`MIN_INTERVAL`].
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`], or [`TokenError::KeysUnavailable`] while no key can be used.
    pub(super) async fn key(&self, algorithm: Algorithm, kid: Option<&str>) -> Result<DecodingKey, TokenError> {
        if let Ok(key) = self.find(algorithm, kid) {
            return Ok(key);
        }
        // Subscribe before asking the gate, so that the end of a running read is not missed.
        let mut reads = self.reads.subscribe();
        if self.ask_for_read() {
            let _ended = tokio::time::timeout(WAIT_LIMIT, reads.changed()).await;
        }
        self.find(algorithm, kid)
    }

    fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Result<DecodingKey, TokenError> {
        let state = self.state.read();
        let keys = state.usable(self.max_stale).ok_or(TokenError::KeysUnavailable)?;
        keys.find(algorithm, kid).cloned().ok_or(TokenError::UnknownKey)
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

    /// Reads once. True if the document could be read.
    async fn read(&self, reader: &Reader) -> bool {
        let outcome = match tokio::time::timeout(READ_LIMIT, reader.read()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(JwksError::TimedOut),
        };
        let ok = outcome.is_ok();
        match outcome {
            Ok(keys) => self.replace(keys),
            Err(error) => self.failed(&error),
        }
        self.gate.lock().in_flight = false;
        self.reads.send_modify(|reads| *reads += 1);
        ok
    }

    fn replace(&self, keys: KeySet) {
        if keys.is_empty() {
            tracing::warn!("the JWKS contains no usable key: all tokens that need one are refused");
        }
        *self.state.write() = State { keys: Some(keys), failing_since: None };
        self.stale_seconds.set(0);
    }

    /// Notes a failed read, and warns how long the keys stay usable.
    fn failed(&self, error: &JwksError) {
        let failing = {
            let mut state = self.state.write();
            let since = *state.failing_since.get_or_insert_with(Instant::now);
            (since.elapsed(), state.keys.is_some())
        };
        let (failing, loaded) = (failing.0.as_secs(), failing.1);
        self.stale_seconds.set(i64::try_from(failing).unwrap_or(i64::MAX));
        let usable = self.max_stale.as_secs().saturating_sub(failing);
        match (loaded, usable) {
            (false, _) => tracing::warn!(%error, "cannot read the JWKS; it was never read, so there are no keys"),
            (true, 0) => {
                tracing::error!(%error, failing_seconds = failing, "cannot read the JWKS; its keys are too old and no longer used")
            }
            (true, _) => tracing::warn!(
                %error,
                failing_seconds = failing,
                usable_seconds = usable,
                "cannot read the JWKS; the keys of the last read stay in use for a limited time"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
