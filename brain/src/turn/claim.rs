//! Claiming an answer: inserting its row. The insert is an ordinary append, so it has seen every takeover before it, and the
//! store's unique keys let exactly one brain succeed.

use std::sync::Arc;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{MessageId, Seq};

use super::turns::Turns;
use super::workers::still_answering;
use crate::log::entry::{Answer, Body, Entry, EntryMeta, EntryState, Sender};
use crate::log::state::Intent;
use crate::session::append::{AppendOutcome, Draft, append};
use crate::session::failures;
use crate::session::handle::Session;
use crate::store::{Appended, EntryRow};

/// How many entries are searched for the last user message when an answer is regenerated.
const LOOK_BACK: u32 = 100;

/// Claims the answer to the oldest message that needs one. `None`: no message does, or another brain is answering.
pub(super) async fn claim_next(turns: &Turns, session: &Arc<Session>) -> Result<Option<Entry>, Failure> {
    loop {
        let due = turns.store().next_unanswered(session.id).await;
        let Some(due) = due.map_err(|error| failures::storage(session.id, &error))? else { return Ok(None) };
        let model_id = session.read(|live| live.state.model_id.clone());
        let draft = draft(turns, due.meta.seq, 0, None, model_id);
        match append(&turns.sessions, session, Intent::Answer(due.meta.seq), &draft).await {
            Ok(AppendOutcome::Appended(row)) => {
                clear_need_later(turns, session, &due.meta);
                return Ok(Some(row));
            }
            Ok(AppendOutcome::AnswerTaken(Appended::StreamingExists)) => return Ok(None),
            // Another brain has begun the answer and did not clear the mark.
            Ok(_) => clear_need(turns, session, &due.meta).await?,
            // The AI may not answer this message any more.
            Err(refused) if matches!(refused.code, ErrorCode::Conflict | ErrorCode::SessionEnded) => {
                clear_need(turns, session, &due.meta).await?;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Claims another answer to the last user message, as an entry with this id. `None`: an earlier request has claimed it.
pub(super) async fn claim_again(
    turns: &Turns,
    session: &Arc<Session>,
    model_id: String,
    id: MessageId,
) -> Result<Option<Entry>, Failure> {
    let (reply_to, latest) = latest(turns, session).await?;
    if latest.as_ref().is_some_and(|row| row.meta.id == id) {
        return Ok(None);
    }
    if is_due(turns, session).await? {
        return Err(still_answering());
    }
    let latest = latest.as_ref().and_then(|row| Some((row.meta.seq, row.meta.answer()?)));
    let (generation, regenerates) = latest.map_or((0, None), |(seq, answer)| (answer.generation + 1, Some(seq)));
    let draft = Draft { id, ..draft(turns, reply_to, generation, regenerates, model_id) };
    match append(&turns.sessions, session, Intent::Answer(reply_to), &draft).await? {
        AppendOutcome::Appended(row) => Ok(Some(row)),
        _ => Err(still_answering()),
    }
}

/// Whether an earlier request has claimed an answer to the last user message as an entry with this id.
pub(super) async fn was_claimed(turns: &Turns, session: &Session, id: MessageId) -> Result<bool, Failure> {
    let (_, latest) = latest(turns, session).await?;
    Ok(latest.is_some_and(|row| row.meta.id == id))
}

/// Whether a message waits for its first answer, which comes before any other. A message whose answer has begun may have its
/// mark for a moment.
async fn is_due(turns: &Turns, session: &Session) -> Result<bool, Failure> {
    let storage = |error| failures::storage(session.id, &error);
    let Some(due) = turns.store().next_unanswered(session.id).await.map_err(storage)? else { return Ok(false) };
    let answer = turns.store().latest_answer(session.id, due.meta.seq).await.map_err(storage)?;
    Ok(answer.is_none())
}

/// The seq of the last user message, and the latest answer to it.
async fn latest(turns: &Turns, session: &Session) -> Result<(Seq, Option<EntryRow>), Failure> {
    let store = turns.store();
    let storage = |error| failures::storage(session.id, &error);
    let recent = store.entries_before(session.id, Seq::MAX, LOOK_BACK).await.map_err(storage)?;
    let asked = recent.iter().rev().find(|row| matches!(row.meta.sender, Sender::User(_)));
    let reply_to = asked.ok_or(ErrorCode::NotFound)?.meta.seq;
    Ok((reply_to, store.latest_answer(session.id, reply_to).await.map_err(storage)?))
}

pub(super) fn draft(
    turns: &Turns,
    reply_to: Seq,
    generation: u32,
    regenerates: Option<Seq>,
    model_id: String,
) -> Draft {
    let lease_until = turns.sessions.now().plus(turns.settings.lease);
    let begun = Answer::begin(reply_to, generation, model_id, turns.settings.owner.clone(), lease_until);
    let answer = Answer { regenerates, ..begun };
    Draft {
        id: MessageId::generate(),
        state: EntryState::Streaming,
        sender: Sender::Ai,
        body: Body::Answer(Box::new(answer)),
        content: String::new(),
    }
}

/// Clears the message's mark that an answer is due, without waiting. The answer's row already says that the message is being
/// answered; the mark only lets the sweep find forgotten messages.
fn clear_need_later(turns: &Turns, session: &Arc<Session>, message: &EntryMeta) {
    let (store, session, id, seq) = (Arc::clone(&turns.sessions.store), session.id, message.id, message.seq);
    turns.sessions.lifecycle.spawn(async move {
        if let Err(error) = store.clear_need(session, id, seq).await {
            tracing::debug!(%session, seq, %error, "the mark was not cleared; the sweep will clear it");
        }
    });
}

async fn clear_need(turns: &Turns, session: &Session, message: &EntryMeta) -> Result<(), Failure> {
    let cleared = turns.store().clear_need(session.id, message.id, message.seq).await;
    cleared.map_err(|error| failures::storage(session.id, &error))
}
