//! Saving the session document, which holds what lists show: the summary of the log and the owner's read marker. The log is the
//! truth, and loading a session folds in what the saved summary lacks. So the summary is saved outside the path of
//! acknowledgements, and once for many entries.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::ids::Seq;

use super::handle::Session;
use super::registry::Sessions;
use crate::store::Store;

/// How long entries gather before the summary is saved.
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// Schedules a save, unless one is scheduled: the log has grown, or the owner has read on.
pub(super) fn save_soon(sessions: &Sessions, session: &Arc<Session>) {
    if std::mem::replace(&mut session.live.lock().save_pending, true) {
        return;
    }
    let (store, session) = (Arc::clone(&sessions.store), Arc::clone(session));
    let drain = sessions.lifecycle.draining().clone();
    sessions.lifecycle.spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(SAVE_AFTER) => {}
            () = drain.cancelled() => {}
        }
        session.live.lock().save_pending = false;
        save(store.as_ref(), &session).await;
        save_read_marker(store.as_ref(), &session).await;
    });
}

/// Saves the summary now, for a change that lists must show at once.
pub(crate) async fn save(store: &dyn Store, session: &Session) {
    let summary = session.read(|live| live.state.clone());
    if let Err(error) = store.save_summary(session.id, &summary).await {
        tracing::debug!(session = %session.id, %error, "the summary was not saved; it can be folded from the log");
    }
}

async fn save_read_marker(store: &dyn Store, session: &Session) {
    let (read_seq, saved) = session.read(|live| (live.read_seq, live.read_saved));
    if read_seq <= saved {
        return;
    }
    match store.mark_read(session.id, read_seq).await {
        Ok(()) => session.live.lock().read_saved = read_seq,
        Err(error) => tracing::debug!(session = %session.id, %error, "the read marker was not saved"),
    }
}

/// Moves the owner's read marker up to `seq`. `false`: it is there or further already.
pub(crate) fn mark_read(sessions: &Sessions, session: &Arc<Session>, seq: Seq) -> bool {
    let moved = {
        let mut live = session.live.lock();
        let seq = seq.min(live.state.seq);
        let moved = seq > live.read_seq;
        live.read_seq = live.read_seq.max(seq);
        moved
    };
    if moved {
        save_soon(sessions, session);
    }
    moved
}
