//! Sessions: the log ([`entry`]), its fold ([`state`]), its one way in ([`append`]), those who read along ([`live`]), how
//! one begins to read along ([`open`]), and what a client may ask ([`requests`]).

use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{Seq, SessionId, UserId};
use parking_lot::Mutex;

use crate::connection::Connection;
use crate::store::Responses;
use crate::store::cipher::SessionKey;

pub mod append;
pub mod clock;
pub mod entry;
pub mod live;
pub mod open;
pub mod registry;
pub mod requests;
pub mod sealed;
pub mod state;
pub mod summary;

use live::Live;

/// A session that is in use on this brain. Nothing that matters lives only here: it is the store's log, folded, with
/// the connections that read along.
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub owner: UserId,
    /// Tells this log from another that had the same id.
    pub epoch: String,
    /// When it was created.
    pub started_at: Timestamp,
    key: SessionKey,
    /// One writer at a time within this brain. Between brains the store's unique keys decide; this only spares them
    /// the conflicts.
    writer: tokio::sync::Mutex<()>,
    live: Mutex<Live>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Session {
    /// The data key.
    pub(crate) fn key(&self) -> &SessionKey {
        &self.key
    }

    /// What the log says up to now, as this brain knows it.
    pub fn read<T>(&self, read: impl FnOnce(&Live) -> T) -> T {
        read(&self.live.lock())
    }

    /// The last entry this brain knows of.
    pub fn seq(&self) -> Seq {
        self.live.lock().state.seq
    }

    /// This connection reads along no more.
    pub fn unsubscribe(&self, connection: &Connection) {
        self.live.lock().unsubscribe(connection);
    }
}

impl Responses {
    /// Counts one finished answer.
    pub fn add(&mut self, took_ms: u64) {
        self.count += 1;
        self.ms_sum += took_ms;
        self.ms_max = self.ms_max.max(took_ms);
    }
}
