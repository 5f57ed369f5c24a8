//! Answering the last message again, on request.

use std::sync::Arc;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::MessageId;
use tokio::sync::oneshot;

use super::claim::was_claimed;
use super::turns::Turns;
use super::worker::work;
use super::workers::{Job, Regeneration, still_answering};
use crate::session::handle::Session;

/// Answers the session's last user message again, as a new entry with this id. Returns when the answer has begun. A repeated
/// request with the same id succeeds.
///
/// # Errors
/// `conflict` while an answer is growing, or while a message waits for its first answer; `not_found` without a message to
/// answer.
pub async fn regenerate(
    turns: &Arc<Turns>,
    session: &Arc<Session>,
    model_id: String,
    id: MessageId,
) -> Result<(), Failure> {
    if is_growing(turns, session) {
        // The log has one growing answer at most. The request succeeds only if an earlier try has begun that answer.
        return if was_claimed(turns, session, id).await? { Ok(()) } else { Err(still_answering()) };
    }
    let (begun, outcome) = oneshot::channel();
    work(turns, session, Some(Job::Regenerate(Regeneration { model_id, id, begun })));
    if is_growing(turns, session) {
        // An answer began since the first check. Its worker has refused the requests it found then, perhaps not this one.
        turns.workers.refuse_regenerations(session.id);
    }
    outcome.await.map_err(|_| ErrorCode::Unavailable)?
}

/// Whether this brain generates an answer that has not ended in the log. A worker goes on for a moment after the end of its
/// answer was published; a client that has seen the end may have the answer regenerated.
fn is_growing(turns: &Turns, session: &Session) -> bool {
    let streaming = session.read(|live| live.streaming.as_ref().map(|entry| entry.meta.seq));
    turns.workers.answer(session.id).is_some_and(|answer| Some(answer.seq) == streaming)
}
