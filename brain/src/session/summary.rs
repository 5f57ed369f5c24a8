//! Saving the session document, which holds what lists show: the summary of the log and the owner's read marker. The log is the
//! truth, and loading a session folds in what the saved summary lacks. So the summary is saved outside the path of
//! acknowledgements, and once for many entries. What a client has read is acknowledged, so it is saved before the reply.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::failure::Failure;
use chatbox_shared::ids::Seq;
use chatbox_shared::lifecycle::Lifecycle;

use super::failures;
use super::handle::Session;
use crate::store::{SharedStore, Store, StoreResult};

/// How long entries gather before the summary is saved.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// The longest wait before a save that failed is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Schedules a save, unless one is scheduled: the log has grown, or the owner has written. A save that fails is tried again, and
/// once more when the brain drains.
pub(super) fn save_soon(store: &SharedStore, lifecycle: &Lifecycle, session: &Arc<Session>) {
    if std::mem::replace(&mut session.live.lock().save_pending, true) {
        return;
    }
    let (store, session) = (Arc::clone(store), Arc::clone(session));
    let drain = lifecycle.draining().clone();
    lifecycle.spawn(async move {
        let mut pause = SAVE_AFTER;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = drain.cancelled() => {}
            }
            session.live.lock().save_pending = false;
            if save_all(store.as_ref(), &session).await || drain.is_cancelled() {
                return;
            }
            if std::mem::replace(&mut session.live.lock().save_pending, true) {
                // A later change has scheduled a save of its own.
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    });
}

async fn save_all(store: &dyn Store, session: &Session) -> bool {
    let read = save_read_marker(store, session).await;
    if let Err(error) = &read {
        tracing::debug!(session = %session.id, %error, "the read marker was not saved");
    }
    save(store, session).await && read.is_ok()
}

/// Saves the summary now. `false`: the store could not be reached.
async fn save(store: &dyn Store, session: &Session) -> bool {
    let summary = session.read(|live| live.state.clone());
    let saved = store.save_summary(session.id, &summary).await;
    if let Err(error) = &saved {
        tracing::debug!(session = %session.id, %error, "the summary was not saved; it can be folded from the log");
    }
    saved.is_ok()
}

/// Saves the summary now, for a change that lists must show at once. If that fails, it is saved later.
pub(crate) async fn save_now(store: &SharedStore, lifecycle: &Lifecycle, session: &Arc<Session>) {
    if !save(store.as_ref(), session).await {
        save_soon(store, lifecycle, session);
    }
}

/// Saves the read marker. `false`: the store has it already.
async fn save_read_marker(store: &dyn Store, session: &Session) -> StoreResult<bool> {
    let (read_seq, saved) = session.read(|live| (live.read_seq, live.read_saved));
    if read_seq <= saved {
        return Ok(false);
    }
    store.mark_read(session.id, read_seq).await?;
    let mut live = session.live.lock();
    live.read_saved = live.read_saved.max(read_seq);
    Ok(true)
}

/// The owner has written the entry at `seq`, and so has read up to there. The marker is saved later.
pub(crate) fn wrote(store: &SharedStore, lifecycle: &Lifecycle, session: &Arc<Session>, seq: Seq) {
    move_read_marker(session, seq);
    save_soon(store, lifecycle, session);
}

/// Moves the owner's read marker up to `seq`, or to the end of the log, and saves it. `false`: it was there or further already.
///
/// # Errors
/// If the store cannot be reached. The call may be repeated.
pub(crate) async fn mark_read(store: &dyn Store, session: &Session, seq: Seq) -> Result<bool, Failure> {
    move_read_marker(session, seq);
    save_read_marker(store, session).await.map_err(|error| failures::storage(session.id, &error))
}

fn move_read_marker(session: &Session, seq: Seq) {
    let mut live = session.live.lock();
    live.read_seq = live.read_seq.max(seq.min(live.state.seq));
}
