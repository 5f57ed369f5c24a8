//! Taking over an answer whose owner is gone.

use std::sync::Arc;

use chatbox_shared::failure::Failure;

use super::lost::settle_lost;
use super::row;
use super::turns::Turns;
use crate::log::entry::{Content, Entry, EntryState, FinishReason};
use crate::log::state::Intent;
use crate::session::catch_up::catch_up;
use crate::session::handle::Session;
use crate::store::{AnswerVersion, EntryRow};

/// Claims the row of an answer whose lease has expired, to generate the answer again. If the AI may not answer any more, or too
/// many owners were lost, ends the answer with the text it has. `None`: there is nothing to generate.
pub(super) async fn adopt(turns: &Turns, session: &Arc<Session>, row: EntryRow) -> Result<Option<Entry>, Failure> {
    let store = turns.store();
    catch_up(store, session).await?;
    let mut entry = session.unseal(row);
    let Some((answer, seen)) = entry.meta.answer().zip(AnswerVersion::of(&entry.meta)) else { return Ok(None) };
    let allowed = session.read(|live| live.state.allows(Intent::Answer(answer.reply_to))).is_ok();
    // The fence counts the owners. The attempt does not: a fallback also begins a new attempt.
    if !allowed || answer.fence >= u64::from(turns.settings.max_attempts) {
        row::finish(&mut entry, EntryState::Final, Some(FinishReason::Interrupted), None);
        if row::replace(store, session, &entry, seen).await? {
            session.apply(&entry);
            settle_lost(turns, session, &entry).await;
        }
        return Ok(None);
    }
    let lost = entry.clone();
    begin_again(turns, &mut entry);
    if !row::replace(store, session, &entry, seen).await? {
        return Ok(None);
    }
    tracing::info!(session = %session.id, seq = entry.meta.seq, "took over an answer whose owner is gone");
    turns.metrics.answer_adopted();
    session.apply(&entry);
    settle_lost(turns, session, &lost).await;
    Ok(Some(entry))
}

/// Makes this brain the owner of the entry, with an empty text.
fn begin_again(turns: &Turns, entry: &mut Entry) {
    let lease_until = turns.sessions.now().plus(turns.settings.lease);
    entry.meta.rev += 1;
    entry.content = Content::Text(String::new());
    let Some(answer) = entry.meta.answer_mut() else { return };
    answer.fence += 1;
    answer.attempt += 1;
    answer.next_index = 0;
    answer.owner.clone_from(&turns.settings.owner);
    if let Some(asked) = answer.asked_model.take() {
        // A fallback was answering. The new attempt begins with the model that was asked.
        answer.model_id = asked;
        answer.conversation = None;
    }
    answer.lease_until = lease_until;
}
