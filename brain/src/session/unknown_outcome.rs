//! Writes of unknown outcome. A write that timed out, or whose caller stopped waiting, may still arrive in the store; what it
//! wrote must then be published. The sessions of such writes are read again until no late write can arrive any more.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::catch_up::catch_up;
use super::handle::Session;
use crate::store::Store;

/// How long a write may still arrive after it was given up: well over every time limit of a store.
const ARRIVES_WITHIN: Duration = Duration::from_secs(15);

/// The sessions that have a write of unknown outcome, each with the time of the write.
#[derive(Default)]
pub(super) struct UnknownOutcomes {
    sessions: Mutex<Vec<(Weak<Session>, Instant)>>,
}

/// A write that is under way. If it is dropped before [`PendingWrite::settle`], its outcome is unknown.
pub(super) struct PendingWrite<'a> {
    outcomes: &'a UnknownOutcomes,
    session: Option<&'a Arc<Session>>,
}

impl PendingWrite<'_> {
    /// The outcome is known.
    pub(super) fn settle(mut self) {
        self.session = None;
    }
}

impl Drop for PendingWrite<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            self.outcomes.sessions.lock().push((Arc::downgrade(session), Instant::now()));
        }
    }
}

impl UnknownOutcomes {
    /// Begins a write.
    pub(super) fn begin<'a>(&'a self, session: &'a Arc<Session>) -> PendingWrite<'a> {
        PendingWrite { outcomes: self, session: Some(session) }
    }

    /// Reads the sessions once. A session stays on the list until it was read after its write can no longer arrive.
    pub(super) async fn settle(&self, store: &dyn Store) {
        let sessions = std::mem::take(&mut *self.sessions.lock());
        for (session, since) in sessions {
            let Some(alive) = session.upgrade() else { continue };
            let read = catch_up(store, &alive).await.is_ok();
            if !read || since.elapsed() < ARRIVES_WITHIN {
                self.sessions.lock().push((session, since));
            }
        }
    }
}
