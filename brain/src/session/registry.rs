//! The sessions in use on this brain: made, loaded from the store, shared by all who use them, and dropped when nobody
//! does.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use chatbox_shared::clock::{Clock, SystemClock, Timestamp};
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{SessionId, UserId};
use chatbox_shared::lifecycle::Lifecycle;
use dashmap::DashMap;
use parking_lot::Mutex;
use rand::RngExt;

use crate::ledger::UsageSum;
use crate::session::Session;
use crate::session::clock::StoreClock;
use crate::session::live::Live;
use crate::store::cipher::SessionKey;
use crate::store::keyring::Keyring;
use crate::store::{Responses, SessionRow, SharedStore, StoreError, StoreResult, Summary};

/// How often sessions with a write of unknown outcome are read again.
const SETTLE_EVERY: Duration = Duration::from_millis(500);
/// A write that was given up on may still be on its way for this long: well over every limit of a store.
const UNSURE_FOR: Duration = Duration::from_secs(15);
/// How long a round of comparing all sessions with the store takes, where there are not very many.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// The least time between two comparisons: at most 200 a second.
const COMPARE_PAUSE: Duration = Duration::from_millis(5);

/// All sessions in use, and what is needed to read and write them.
pub struct Sessions {
    pub(crate) store: SharedStore,
    pub(crate) lifecycle: Lifecycle,
    keyring: Keyring,
    clock: StoreClock,
    loaded: DashMap<SessionId, Weak<Session>>,
    /// Sessions with a write whose outcome is not known: what it wrote, if it did, must still be delivered.
    unsure: Mutex<Vec<(Weak<Session>, Instant)>>,
}

/// Marks a session as unsure when dropped before its write is settled: also when the caller gave up waiting.
pub(crate) struct Unsure<'a> {
    sessions: &'a Sessions,
    session: Option<&'a Arc<Session>>,
}

impl Unsure<'_> {
    /// The outcome is known.
    pub(crate) fn settled<T>(mut self, outcome: T) -> T {
        self.session = None;
        outcome
    }
}

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            self.sessions.unsure.lock().push((Arc::downgrade(session), Instant::now()));
        }
    }
}

impl Sessions {
    /// An empty registry over this store.
    pub fn new(store: SharedStore, keyring: Keyring, lifecycle: Lifecycle) -> Self {
        Self {
            store,
            lifecycle,
            keyring,
            clock: StoreClock::new(SystemClock.now()),
            loaded: DashMap::new(),
            unsure: Mutex::new(Vec::new()),
        }
    }

    /// The store's time, as estimated since it was last asked.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Asks the store for its time.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn read_clock(&self) -> StoreResult<Timestamp> {
        let asked = Instant::now();
        let now = self.store.now().await?;
        self.clock.set(now, asked, asked.elapsed());
        Ok(now)
    }

    /// The session, from memory or the store. `None`: there is none, or it was erased.
    ///
    /// # Errors
    /// Where the store cannot be reached or the data key cannot be unwrapped.
    pub async fn get(&self, id: SessionId) -> Result<Option<Arc<Session>>, Failure> {
        if let Some(session) = self.in_memory(id) {
            return Ok(Some(session));
        }
        let row = self.store.session(id).await.map_err(|error| self.storage_of(id, &error))?;
        let Some(row) = row else { return Ok(None) };
        let Some(session) = self.build(row)? else { return Ok(None) };
        self.catch_up(&session).await?;
        let streaming = self.store.streaming_answer(id).await.map_err(|error| self.storage_of(id, &error))?;
        if let Some(row) = streaming {
            let entry = session.unseal(row);
            let mut live = session.live.lock();
            if live.streaming.is_none() && entry.meta.seq <= live.state.seq {
                live.streaming = Some(Box::new(entry));
            }
        }
        // A brain that died may have recorded calls and not got to sum them up.
        self.sum_up(&session).await;
        Ok(Some(self.share(session)))
    }

    /// Makes a session. If the id is taken, the one that has it is returned.
    ///
    /// # Errors
    /// Where the store cannot be reached; the same call may be made again.
    pub async fn create(
        &self,
        id: SessionId,
        owner: &UserId,
        model_id: String,
        name: &str,
    ) -> Result<Option<Arc<Session>>, Failure> {
        let key = SessionKey::generate(id).map_err(|error| self.internal_of(id, &error))?;
        let now = self.now();
        let name = if name.is_empty() { Vec::new() } else { self.seal_name(id, &key, name)? };
        let row = SessionRow {
            id,
            user: owner.clone(),
            epoch: format!("{:016x}", rand::rng().random::<u64>()),
            name,
            started_at: now,
            data_key: Some(self.keyring.wrap(&key, id).map_err(|error| self.internal_of(id, &error))?),
            summary: Summary::start(model_id, now),
            read_seq: 0,
            usage: UsageSum::default(),
            responses: Responses::default(),
        };
        let created = self.store.create_session(&row).await.map_err(|error| self.storage_of(id, &error))?;
        if !created {
            return self.get(id).await;
        }
        Ok(self.build(row)?.map(|session| self.share(session)))
    }

    /// Forgets a session that was erased.
    pub fn forget(&self, id: SessionId) {
        self.loaded.remove(&id);
    }

    /// The session, if somebody uses it here.
    pub fn in_memory(&self, id: SessionId) -> Option<Arc<Session>> {
        self.loaded.get(&id).and_then(|session| session.upgrade())
    }

    /// Drops the places of sessions nobody uses any more.
    pub fn tidy(&self) {
        self.loaded.retain(|_, session| session.strong_count() > 0);
    }

    /// All sessions in use.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.loaded.iter().filter_map(|session| session.upgrade()).collect()
    }

    /// How many places the registry holds.
    pub fn count(&self) -> usize {
        self.loaded.len()
    }

    /// Whoever is first shares his; all others use that one.
    fn share(&self, session: Arc<Session>) -> Arc<Session> {
        let mut place = self.loaded.entry(session.id).or_default();
        if let Some(first) = place.upgrade() {
            return first;
        }
        *place = Arc::downgrade(&session);
        session
    }

    fn build(&self, row: SessionRow) -> Result<Option<Arc<Session>>, Failure> {
        let Some(wrapped) = &row.data_key else { return Ok(None) };
        let key = self.keyring.unwrap(wrapped, row.id).map_err(|error| self.internal_of(row.id, &error))?;
        let name = self.open_name(&row, &key);
        Ok(Some(Arc::new(Session {
            id: row.id,
            owner: row.user,
            epoch: row.epoch,
            started_at: row.started_at,
            key,
            writer: tokio::sync::Mutex::new(()),
            live: Mutex::new(Live::new(row.summary, name, row.read_seq, row.usage, row.responses)),
        })))
    }

    /// A session for a list: read, not shared, its name in the clear.
    pub(crate) fn listed(&self, row: SessionRow) -> Result<Option<Arc<Session>>, Failure> {
        match self.in_memory(row.id) {
            Some(session) => Ok(Some(session)),
            None => self.build(row),
        }
    }

    pub(crate) fn open_name(&self, row: &SessionRow, key: &SessionKey) -> String {
        if row.name.is_empty() {
            return String::new();
        }
        key.open_name(row.id, &row.name).unwrap_or_else(|error| {
            tracing::error!(session = %row.id, %error, "the stored name cannot be read");
            String::new()
        })
    }

    pub(crate) fn seal_name(&self, id: SessionId, key: &SessionKey, name: &str) -> Result<Vec<u8>, Failure> {
        key.seal_name(id, name).map_err(|error| self.internal_of(id, &error))
    }

    /// Begins a write whose outcome may stay unknown.
    pub(crate) fn unsure<'a>(&'a self, session: &'a Arc<Session>) -> Unsure<'a> {
        Unsure { sessions: self, session: Some(session) }
    }

    /// Reads again and again what writes of unknown outcome may have left, until none can arrive any more. Runs until
    /// the drain.
    pub async fn settle_unsure(self: Arc<Self>) {
        while !self.pause_or_drain(SETTLE_EVERY).await {
            let unsure = std::mem::take(&mut *self.unsure.lock());
            for (place, since) in unsure {
                let Some(session) = place.upgrade() else { continue };
                let read = self.catch_up(&session).await.is_ok();
                if !read || since.elapsed() < UNSURE_FOR {
                    self.unsure.lock().push((place, since));
                }
            }
        }
    }

    /// Checks every session somebody reads along in against the store, slowly and for ever: what another brain has
    /// appended is seen within about [`COMPARE_EVERY`] even if nobody tells. Runs until the drain.
    pub async fn compare(self: Arc<Self>) {
        loop {
            let watched: Vec<_> = self.all().into_iter().filter(|session| session.read(Live::is_watched)).collect();
            let pause = COMPARE_EVERY / u32::try_from(watched.len() + 1).unwrap_or(u32::MAX);
            for session in watched {
                if self.pause_or_drain(pause.max(COMPARE_PAUSE)).await {
                    return;
                }
                if let Err(failure) = self.catch_up(&session).await {
                    tracing::debug!(session = %session.id, %failure, "a session could not be compared with the store");
                }
            }
            if self.pause_or_drain(pause).await {
                return;
            }
        }
    }

    async fn pause_or_drain(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.lifecycle.draining().cancelled() => true,
            () = tokio::time::sleep(pause) => false,
        }
    }

    pub(crate) fn storage(&self, session: &Session, error: &StoreError) -> Failure {
        self.storage_of(session.id, error)
    }

    pub(crate) fn internal(&self, session: &Session, error: &dyn std::error::Error) -> Failure {
        self.internal_of(session.id, error)
    }

    /// Logs what the store said and gives what a client may know of it.
    pub(crate) fn storage_of(&self, session: SessionId, error: &StoreError) -> Failure {
        let failure = Failure::new(code_of(error));
        tracing::warn!(%session, error_id = failure.error_id, %error, "a store operation failed");
        failure
    }

    pub(crate) fn list_failed(&self, error: &StoreError) -> Failure {
        let failure = Failure::new(code_of(error));
        tracing::warn!(error_id = failure.error_id, %error, "a list could not be read");
        failure
    }

    pub(crate) fn internal_of(&self, session: SessionId, error: &dyn std::error::Error) -> Failure {
        let failure = Failure::new(ErrorCode::Internal);
        tracing::error!(%session, error_id = failure.error_id, %error, "a session cannot be used");
        failure
    }
}

fn code_of(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::Unavailable(_) => ErrorCode::StorageUnavailable,
        StoreError::Corrupt(_) | StoreError::Refused(_) => ErrorCode::Internal,
    }
}
