//! Records the calls of brains that crashed before they recorded them. What such a call used is estimated from the saved text
//! of its answer.

use std::sync::Arc;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::ErrorCode;

use super::turns::Turns;
use crate::ledger::{CallFinish, Purpose, Reservation, UsageRecord};
use crate::log::entry::{Entry, EntryState};
use crate::session::handle::Session;
use crate::session::usage;
use crate::store::{StoreError, StoreResult};

/// Reservations settled in one round.
const ROUND: u32 = 100;

/// Settles expired reservations. One that cannot be settled does not prevent the others.
pub(super) async fn settle_expired(turns: &Turns, now: Timestamp) -> StoreResult<()> {
    for reservation in turns.store().expired_reservations(now, ROUND).await? {
        if let Err(error) = settle_reservation(turns, &reservation, now).await {
            let call = reservation.call.id;
            tracing::warn!(session = %reservation.call.session, %call, %error, "a lost call was not recorded");
        }
    }
    Ok(())
}

async fn settle_reservation(turns: &Turns, reservation: &Reservation, now: Timestamp) -> StoreResult<()> {
    let call = &reservation.call;
    let session = match turns.sessions.get(call.session).await {
        Ok(session) => session,
        Err(failure) if failure.code == ErrorCode::StorageUnavailable => {
            return Err(StoreError::Unavailable("the session could not be read".into()));
        }
        // The session cannot be decrypted, so only the size of the prompt is known.
        Err(_) => None,
    };
    let row = match &session {
        Some(session) if call.purpose == Purpose::Answer => turns.store().entry(session.id, call.seq).await?,
        _ => None,
    };
    let entry = session.as_ref().zip(row).map(|(session, row)| session.unseal(row));
    turns.store().record_usage(&record_of_lost(turns, reservation, entry.as_ref(), now)).await?;
    match session {
        Some(session) => usage::refresh(turns.store(), &session).await,
        None => {
            let usage = turns.store().session_usage(call.session).await?;
            turns.store().save_session_usage(call.session, &usage).await?;
        }
    }
    Ok(())
}

/// Settles the reservations of an answer whose owner was lost. Reservations that are not settled here expire, and the sweep
/// settles them.
pub(super) async fn settle_lost(turns: &Turns, session: &Arc<Session>, lost: &Entry) {
    if let Err(error) = try_settle_lost(turns, session, lost).await {
        tracing::debug!(session = %session.id, %error, "calls of a lost owner wait for their reservations to expire");
    }
}

async fn try_settle_lost(turns: &Turns, session: &Arc<Session>, lost: &Entry) -> Result<(), StoreError> {
    let open = turns.store().open_reservations(&session.owner).await?;
    let answer = (session.id, lost.meta.seq, Purpose::Answer);
    let of_answer = open.iter().filter(|it| (it.call.session, it.call.seq, it.call.purpose) == answer);
    for reservation in of_answer {
        let record = record_of_lost(turns, reservation, Some(lost), turns.sessions.now());
        turns.store().record_usage(&record).await?;
    }
    usage::refresh(turns.store(), session).await;
    Ok(())
}

/// The record of a lost call, from its answer as it is stored.
fn record_of_lost(turns: &Turns, reservation: &Reservation, entry: Option<&Entry>, now: Timestamp) -> UsageRecord {
    let call = &reservation.call;
    let tunables = turns.live_config.get();
    let model = tunables.catalog.get(&call.model_id);
    let price = model.and_then(|model| model.price);
    // The stored text tells something about this call only if this call has written it.
    let part = entry.and_then(|entry| Some((entry, entry.meta.answer()?)));
    let part = part.filter(|(_, answer)| (answer.attempt, &answer.model_id) == (call.attempt, &call.model_id));
    let Some((entry, answer)) = part else { return reservation.lost(0, CallFinish::Lost, price, now) };
    let finish = match (entry.meta.state, answer.finish) {
        (EntryState::Final, Some(reason)) => CallFinish::of(reason),
        (EntryState::Failed, _) => CallFinish::Failed,
        _ => CallFinish::Lost,
    };
    match answer.usage.filter(|usage| !usage.estimated) {
        Some(usage) => {
            let record = reservation.record(usage, finish, price, now);
            let total_ms = answer.total_ms.unwrap_or(record.total_ms);
            UsageRecord { first_token_ms: answer.first_token_ms, total_ms, ..record }
        }
        None => {
            let counter = model.map(|model| model.counter).unwrap_or_default();
            reservation.lost(counter.count(entry.content.text()), finish, price, now)
        }
    }
}
