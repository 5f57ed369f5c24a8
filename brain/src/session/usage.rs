//! What a session has used, summed from the ledger, and how many answers have ended. The ledger is the truth: a sum that was
//! not saved is repaired by the next one, or when the session is loaded again.

use super::handle::Session;
use crate::store::Store;

/// Counts an ended answer.
pub(crate) async fn count_answer(store: &dyn Store, session: &Session, took_ms: u64) {
    session.live.lock().responses.add(took_ms);
    if let Err(error) = store.add_response(session.id, took_ms).await {
        tracing::warn!(session = %session.id, %error, "an ended answer was not counted");
    }
}

/// Sums up the session's records in the ledger and tells all subscribers.
pub(crate) async fn refresh(store: &dyn Store, session: &Session) {
    if sum_up(store, session).await {
        session.publish_view();
    }
}

/// Sums up the session's records in the ledger, and saves the sum if it has more calls than the saved one. `false`: the
/// ledger could not be read.
pub(super) async fn sum_up(store: &dyn Store, session: &Session) -> bool {
    let usage = match store.session_usage(session.id).await {
        Ok(usage) => usage,
        Err(error) => {
            tracing::debug!(session = %session.id, %error, "the session's usage was not summed up");
            return false;
        }
    };
    let saved = {
        let mut live = session.live.lock();
        // Records are never removed, so a sum of fewer calls is an older one.
        if usage.calls >= live.usage.calls {
            live.usage = usage;
        }
        live.usage_saved
    };
    if usage.calls <= saved {
        return true;
    }
    match store.save_session_usage(session.id, &usage).await {
        Ok(()) => {
            let mut live = session.live.lock();
            live.usage_saved = live.usage_saved.max(usage.calls);
        }
        Err(error) => {
            tracing::debug!(session = %session.id, %error, "the session's usage was not saved; the ledger has it");
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chatbox_shared::clock::Timestamp;
    use chatbox_shared::ids::{CallId, SessionId, UserId};
    use chatbox_shared::lifecycle::Lifecycle;

    use super::*;
    use crate::ledger::{Call, CallFinish, Purpose, Reservation, UsageSum};
    use crate::log::state::Responses;
    use crate::session::registry::Sessions;
    use crate::store::keyring::Keyring;
    use crate::store::sqlite::SqliteStore;

    #[tokio::test]
    async fn answers_are_counted_and_usage_is_the_sum_of_the_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&folder.path().join("chat.db")).unwrap());
        store.migrate().await.unwrap();
        let keyring = Keyring::parse(&Keyring::generate_line("k1").unwrap(), None).unwrap();
        let sessions = Sessions::new(store.clone(), keyring, Lifecycle::new());
        let user = UserId::new("user");
        let session = sessions.create(SessionId::generate(), &user, "m".into(), "").await.unwrap().unwrap();
        let call = Call {
            id: CallId::generate(),
            user,
            session: session.id,
            purpose: Purpose::Answer,
            seq: 2,
            attempt: 1,
            model_id: "m".into(),
            provider: "demo".into(),
            started_at: Timestamp(0),
        };
        let reservation = Reservation { call, tokens: 9, cost: 0, input_estimate: 5, expires_at: Timestamp(9) };
        store.record_usage(&reservation.lost(3, CallFinish::Lost, None, Timestamp(7))).await.unwrap();
        count_answer(store.as_ref(), &session, 40).await;
        refresh(store.as_ref(), &session).await;
        let usage = UsageSum { calls: 1, input: 5, cached: 0, output: 3, cost: 0 };
        let responses = Responses { count: 1, ms_sum: 40, ms_max: 40 };
        assert_eq!(session.read(|live| (live.usage, live.responses)), (usage, responses));
        let row = store.session(session.id).await.unwrap().unwrap();
        assert_eq!((row.usage, row.responses), (usage, responses));

        // A sum of more calls, reported by another brain, stays.
        let newer = UsageSum { calls: 2, ..usage };
        session.live.lock().usage = newer;
        refresh(store.as_ref(), &session).await;
        assert_eq!(session.read(|live| live.usage), newer);
    }
}
