//! Ending a growing answer, on whichever brain it grows.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::Seq;

use super::row;
use super::turns::Turns;
use crate::log::entry::{EntryState, FinishReason};
use crate::session::catch_up::catch_up;
use crate::session::failures;
use crate::session::handle::Session;
use crate::store::AnswerVersion;

/// How long to wait for an answer of this brain to end. Only a store that does not answer can take so long.
const PATIENCE: Duration = Duration::from_secs(4);

/// Ends the session's growing answer, which keeps its text, and any answer that begins before this returns. Nothing is appended
/// to the answer after that. Succeeds also without a growing answer.
///
/// # Errors
/// If the store cannot be reached.
pub async fn end(turns: &Turns, session: &Arc<Session>, reason: FinishReason) -> Result<(), Failure> {
    end_here(turns, session, reason).await?;
    // Also after the answer has ended here: another brain may have taken over its row before.
    end_in_store(turns, session, reason, None).await
}

/// Ends the session's growing answer, but no answer that begins after it: a message that waits gets its own.
///
/// # Errors
/// If the store cannot be reached.
pub async fn stop(turns: &Turns, session: &Arc<Session>) -> Result<(), Failure> {
    let ended = end_here(turns, session, FinishReason::Stopped).await?;
    end_in_store(turns, session, FinishReason::Stopped, ended).await
}

/// Ends the growing answer of a session that is about to be erased. A failure is logged only.
pub async fn abandon(turns: &Turns, session: &Arc<Session>) {
    if let Err(failure) = end(turns, session, FinishReason::Stopped).await {
        tracing::debug!(session = %session.id, %failure, "an answer of an erased session did not end cleanly");
    }
}

/// Ends the answer that this brain generates, and returns its seq. If the worker is just claiming a row, waits for that: the row
/// must not be taken away from a worker that is about to show text.
async fn end_here(turns: &Turns, session: &Session, reason: FinishReason) -> Result<Option<Seq>, Failure> {
    let ending = async {
        let answer = turns.workers.wait_for_answer(session.id).await?;
        answer.request_end(reason);
        answer.ended().await;
        Some(answer.seq)
    };
    tokio::time::timeout(PATIENCE, ending).await.map_err(|_| ErrorCode::StorageUnavailable.into())
}

/// Ends the streaming answer in the store, so that its owner, if it is alive, can no longer write. `only`: end it only if it is
/// at this seq.
async fn end_in_store(
    turns: &Turns,
    session: &Arc<Session>,
    reason: FinishReason,
    only: Option<Seq>,
) -> Result<(), Failure> {
    let store = turns.store();
    loop {
        let row = store.streaming_answer(session.id).await;
        let row = row.map_err(|error| failures::storage(session.id, &error))?;
        let Some(row) = row.filter(|row| only.is_none_or(|seq| row.meta.seq == seq)) else { return Ok(()) };
        let mut entry = session.unseal(row);
        // The entry can be published only after all entries before it.
        catch_up(store, session).await?;
        let Some(seen) = AnswerVersion::of(&entry.meta) else { return Ok(()) };
        row::finish(&mut entry, EntryState::Final, Some(reason), None);
        if row::replace(store, session, &entry, seen).await? {
            session.apply(&entry);
            return Ok(());
        }
        // The owner has saved meanwhile: read its text again, so that the end keeps it.
        tokio::time::sleep(row::RETRY_PAUSE).await;
    }
}
