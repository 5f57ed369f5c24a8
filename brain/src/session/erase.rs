//! Erasing a session.

use std::sync::Arc;

use chatbox_shared::failure::Failure;
use chatbox_shared::ids::{SessionId, UserId};

use super::audience::Recipients;
use super::event::SessionEvent;
use super::failures;
use super::handle::Session;
use super::registry::Sessions;
use crate::store::Store;

/// Erases the session, tells all subscribers, and ends their subscriptions.
///
/// # Errors
/// If the store cannot be reached. The call may be repeated.
pub(crate) async fn erase(sessions: &Sessions, session: &Arc<Session>) -> Result<(), Failure> {
    let _writer = session.writer.lock().await;
    sessions.store.erase_session(session.id).await.map_err(|error| failures::storage(session.id, &error))?;
    sessions.forget(session.id);
    let subscribers = {
        let mut live = session.live.lock();
        live.erased = true;
        live.publish(SessionEvent::Deleted, Recipients::Everyone);
        live.take_subscribers()
    };
    for subscriber in subscribers {
        subscriber.release(session.id);
    }
    Ok(())
}

/// Whether this id belongs to an erased session of this user.
///
/// # Errors
/// If the store cannot be reached.
pub(crate) async fn was_erased(store: &dyn Store, id: SessionId, user: &UserId) -> Result<bool, Failure> {
    let row = store.session(id).await.map_err(|error| failures::storage(id, &error))?;
    Ok(row.is_some_and(|row| row.data_key.is_none() && row.user == *user))
}
