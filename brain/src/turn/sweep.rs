//! Finding work that other brains have left: answers whose owner is gone, messages that no brain has begun to answer, and
//! reservations of lost calls. Each is an indexed query at a jittered pace. Whoever finds a row takes it by a compare-and-set,
//! so any number of brains may sweep at once.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::SessionId;
use rand::RngExt;

use super::lost::settle_expired;
use super::turns::Turns;
use super::worker::{kick, work};
use super::workers::Job;
use crate::session::handle::Session;
use crate::store::StoreResult;

/// Rows taken up in one round.
const ROUND: u32 = 100;
/// A message counts as forgotten if its answer has not begun after this time. Before that, the brain that took the message is
/// still about to begin.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);

/// Sweeps again and again, until the drain.
pub async fn sweep(turns: Arc<Turns>) {
    let drain = turns.sessions.lifecycle.draining().clone();
    let mut from = Timestamp::default();
    loop {
        let pause = turns.settings.sweep_interval.mul_f64(rand::rng().random_range(0.75..1.25));
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        from = sweep_once(&turns, from).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the store cannot be swept");
            Timestamp::default()
        });
        turns.sessions.tidy();
    }
}

/// One round. `from`: the age at which it begins to look for forgotten messages; the result is the `from` of the next round.
async fn sweep_once(turns: &Arc<Turns>, from: Timestamp) -> StoreResult<Timestamp> {
    let now = turns.sessions.read_clock().await?;
    take_up_expired(turns, now).await?;
    let next = take_up_forgotten(turns, from, now).await?;
    settle_expired(turns, now).await?;
    Ok(next)
}

async fn take_up_expired(turns: &Arc<Turns>, now: Timestamp) -> StoreResult<()> {
    for row in turns.store().expired_answers(now, ROUND).await? {
        let runs_here = turns.workers.answer(row.meta.session).is_some_and(|here| here.seq == row.meta.seq);
        if runs_here {
            continue;
        }
        if let Some(session) = find(turns, row.meta.session).await? {
            work(turns, &session, Some(Job::Adopt(row)));
        }
    }
    Ok(())
}

/// A page that is full is followed by the next page, the last page by the first. So messages that wait behind running answers
/// do not hide those after them.
async fn take_up_forgotten(turns: &Arc<Turns>, from: Timestamp, now: Timestamp) -> StoreResult<Timestamp> {
    let due = turns.store().unanswered_between(from, now.minus(FORGOTTEN_AFTER), ROUND).await?;
    let full = due.len() >= ROUND as usize;
    // At least one millisecond later, in case all rows of the page have the same time.
    let next = due.last().filter(|_| full).map(|last| last.meta.created_at.max(Timestamp(from.0 + 1)));
    for row in due.into_iter().filter(|row| !turns.workers.contains(row.meta.session)) {
        if let Some(session) = find(turns, row.meta.session).await? {
            kick(turns, &session);
        }
    }
    Ok(next.unwrap_or_default())
}

/// The session of a row. `None`: the row is not taken up now.
async fn find(turns: &Turns, id: SessionId) -> StoreResult<Option<Arc<Session>>> {
    match turns.sessions.get(id).await {
        Ok(Some(session)) => Ok(Some(session)),
        Ok(None) => {
            // The session was erased while the row was being written: erase the row, too.
            turns.store().erase_session(id).await?;
            Ok(None)
        }
        Err(failure) => {
            tracing::debug!(session = %id, %failure, "a row of this session was not taken up");
            Ok(None)
        }
    }
}
