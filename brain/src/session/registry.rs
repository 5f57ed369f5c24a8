//! The sessions in use on this brain: created, loaded from the store, shared by all who use them, and dropped when nobody does.

use std::sync::{Arc, Weak};
use std::time::Instant;

use chatbox_shared::clock::{Clock, SystemClock, Timestamp};
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::{SessionId, UserId};
use chatbox_shared::lifecycle::Lifecycle;
use dashmap::DashMap;
use rand::RngExt;

use super::catch_up::catch_up;
use super::clock::StoreClock;
use super::failures;
use super::handle::{Identity, Session};
use super::live::Live;
use super::unknown_outcome::UnknownOutcomes;
use super::usage::sum_up;
use super::{name, summary};
use crate::ledger::UsageSum;
use crate::log::state::{Responses, Summary};
use crate::store::cipher::SessionKey;
use crate::store::keyring::Keyring;
use crate::store::{SessionRow, SharedStore, StoreResult};

/// All sessions in use, and what is needed to read and write them.
pub struct Sessions {
    pub(crate) store: SharedStore,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) keyring: Keyring,
    clock: StoreClock,
    loaded: DashMap<SessionId, Weak<Session>>,
    pub(super) unknown_outcomes: UnknownOutcomes,
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
            unknown_outcomes: UnknownOutcomes::default(),
        }
    }

    /// The store's time, estimated from the last reading.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Reads the store's time.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn read_clock(&self) -> StoreResult<Timestamp> {
        let asked = Instant::now();
        let now = self.store.now().await?;
        self.clock.set(now, asked, asked.elapsed());
        Ok(now)
    }

    /// The session, from memory or from the store. `None`: it does not exist, or it was erased.
    ///
    /// # Errors
    /// If the store cannot be reached, or if the data key cannot be unwrapped.
    pub async fn get(&self, id: SessionId) -> Result<Option<Arc<Session>>, Failure> {
        if let Some(session) = self.in_memory(id) {
            return Ok(Some(session));
        }
        let row = self.store.session(id).await.map_err(|error| failures::storage(id, &error))?;
        let Some(row) = row else { return Ok(None) };
        let Some(session) = self.build(row)? else { return Ok(None) };
        let saved = session.seq();
        catch_up(self.store.as_ref(), &session).await?;
        let streaming = self.store.streaming_answer(id).await.map_err(|error| failures::storage(id, &error))?;
        if let Some(row) = streaming {
            let entry = session.unseal(row);
            let mut live = session.live.lock();
            if live.streaming.is_none() && entry.meta.seq <= live.state.seq {
                live.streaming = Some(Box::new(entry));
            }
        }
        // A brain that crashed may have recorded calls in the ledger without adding them to the session's sum.
        sum_up(self.store.as_ref(), &session).await;
        let session = self.share(session);
        if saved < session.seq() {
            summary::save_soon(&self.store, &self.lifecycle, &session);
        }
        Ok(Some(session))
    }

    /// Creates a session. If the id is taken, returns the session that has it; `None` if that one was erased.
    ///
    /// # Errors
    /// If the store cannot be reached. The call may be repeated.
    pub async fn create(
        &self,
        id: SessionId,
        owner: &UserId,
        model_id: String,
        name: &str,
    ) -> Result<Option<Arc<Session>>, Failure> {
        let key = SessionKey::generate(id).map_err(|error| failures::internal(id, &error))?;
        let now = self.now();
        let row = SessionRow {
            id,
            user: owner.clone(),
            epoch: format!("{:016x}", rand::rng().random::<u64>()),
            name: if name.is_empty() { Vec::new() } else { name::seal(id, &key, name)? },
            started_at: now,
            data_key: Some(self.keyring.wrap(&key, id).map_err(|error| failures::internal(id, &error))?),
            summary: Summary::start(model_id, now),
            read_seq: 0,
            usage: UsageSum::default(),
            responses: Responses::default(),
        };
        let created = self.store.create_session(&row).await.map_err(|error| failures::storage(id, &error))?;
        if !created {
            return self.get(id).await;
        }
        Ok(self.build(row)?.map(|session| self.share(session)))
    }

    /// A session for a list. Its row may lack the last entries, if the brain that appended them died before it saved the summary:
    /// such a session is loaded, which repairs the row. Any other one is read, but not shared.
    ///
    /// # Errors
    /// If the store cannot be reached, or if the data key cannot be unwrapped.
    pub(crate) async fn listed(&self, row: SessionRow) -> Result<Option<Arc<Session>>, Failure> {
        if let Some(session) = self.in_memory(row.id) {
            return Ok(Some(session));
        }
        let next = self.store.entry(row.id, row.summary.seq + 1).await;
        match next.map_err(|error| failures::storage(row.id, &error))? {
            Some(_) => self.get(row.id).await,
            None => self.build(row),
        }
    }

    /// Removes a session that was erased.
    pub(super) fn forget(&self, id: SessionId) {
        self.loaded.remove(&id);
    }

    /// The session, if it is in use on this brain.
    pub fn in_memory(&self, id: SessionId) -> Option<Arc<Session>> {
        self.loaded.get(&id).and_then(|session| session.upgrade())
    }

    /// Removes the places of sessions that nobody uses any more.
    pub fn tidy(&self) {
        self.loaded.retain(|_, session| session.strong_count() > 0);
    }

    /// All sessions in use.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.loaded.iter().filter_map(|session| session.upgrade()).collect()
    }

    /// How many sessions the registry holds, including those nobody uses any more until [`Sessions::tidy`].
    pub fn count(&self) -> usize {
        self.loaded.len()
    }

    /// Of several tasks that load the same session, the first shares its copy; the others use that one.
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
        let key = self.keyring.unwrap(wrapped, row.id).map_err(|error| failures::internal(row.id, &error))?;
        let name = name::open(&row, &key);
        let live = Live::new(row.id, row.summary, name, row.read_seq, row.usage, row.responses);
        let identity = Identity { id: row.id, owner: row.user, epoch: row.epoch, started_at: row.started_at };
        Ok(Some(Arc::new(Session::new(identity, key, live))))
    }
}
