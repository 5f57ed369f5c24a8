//! Finding work that other brains have left: answers whose owner is gone, messages that no brain has begun to answer, and
//! reservations of lost calls. Each is an indexed query at a jittered pace. Whoever finds a row takes it by a compare-and-set,
//! so any number of brains may sweep at once. A round reads all pages to their end, so rows that cannot be taken up never hide
//! the rows behind them.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::ErrorCode;
use chatbox_shared::ids::SessionId;
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::RngExt;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::lost::settle_expired;
use super::row::HANDED_OVER;
use super::turns::Turns;
use super::worker::{kick, work};
use super::workers::Job;
use crate::session::handle::Session;
use crate::store::{EntryRow, StoreError, StoreResult};

/// Rows of a page.
const PAGE: u32 = 100;
/// Sessions loaded at once.
const LOADS: usize = 16;
/// A message counts as forgotten if its answer has not begun after this time. Before that, the brain that took the message is
/// still about to begin.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);

/// Sweeps again and again, until the drain.
pub async fn sweep(turns: Arc<Turns>) {
    let drain = turns.sessions.lifecycle.draining().clone();
    let interval = turns.settings.sweep_interval;
    let mut sweeper = Sweeper { turns, trusted_from: Instant::now() };
    loop {
        let pause = interval.mul_f64(rand::rng().random_range(0.75..1.25));
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if let Err(error) = sweeper.round().await {
            sweeper.distrust_leases();
            tracing::warn!(%error, "the store cannot be swept");
        }
        sweeper.turns.sessions.tidy();
        sweeper.turns.metrics.sessions(sweeper.turns.sessions.count());
    }
}

/// The sweep of one brain.
struct Sweeper {
    turns: Arc<Turns>,
    /// From when an expired lease means that its owner is gone. While the store is away no owner can renew its lease, so after
    /// that every owner gets a whole lease to do so.
    trusted_from: Instant,
}

impl Sweeper {
    async fn round(&mut self) -> StoreResult<()> {
        let asked = Instant::now();
        let now = self.turns.sessions.read_clock().await?;
        self.distrust_if_slow(asked);
        self.take_up_expired(now).await?;
        self.take_up_forgotten(now).await?;
        settle_expired(&self.turns, now).await
    }

    /// Takes no lease for expired until every owner has had the time of a lease to renew its own.
    fn distrust_leases(&mut self) {
        self.trusted_from = Instant::now() + self.turns.settings.lease;
    }

    /// A store that took a third of a lease to answer may have been away for longer.
    fn distrust_if_slow(&mut self, asked: Instant) {
        if asked.elapsed() > self.turns.settings.lease / 3 {
            self.distrust_leases();
        }
    }

    /// The end of the leases that have expired. Answers that were handed over are taken up at any time.
    fn expired_before(&self, now: Timestamp) -> Timestamp {
        if Instant::now() < self.trusted_from { HANDED_OVER.plus(Duration::from_millis(1)) } else { now }
    }

    async fn take_up_expired(&mut self, now: Timestamp) -> StoreResult<()> {
        let mut after = None;
        loop {
            let (before, asked) = (self.expired_before(now), Instant::now());
            let page = self.turns.store().expired_answers(before, after, PAGE).await?;
            self.distrust_if_slow(asked);
            let before = self.expired_before(now);
            let mut rows = page.rows;
            rows.retain(|row| row.meta.answer().is_some_and(|answer| answer.lease_until < before));
            // Each brain in another order, so that not all of them load the same sessions.
            rows.shuffle(&mut rand::rng());
            let turns = &self.turns;
            each(rows, |row| adopt_later(turns, row)).await?;
            let Some(next) = page.next else { return Ok(()) };
            after = Some(next);
        }
    }

    async fn take_up_forgotten(&self, now: Timestamp) -> StoreResult<()> {
        let (mut from, before) = (Timestamp::default(), now.minus(FORGOTTEN_AFTER));
        loop {
            let rows = self.turns.store().unanswered_between(from, before, PAGE).await?;
            // At least one millisecond later, in case all rows of the page have the same time.
            let next = rows.last().filter(|_| rows.len() >= PAGE as usize).map(|last| last.meta.created_at);
            each(rows, |row| answer_later(&self.turns, row)).await?;
            let Some(next) = next else { return Ok(()) };
            from = next.max(from.plus(Duration::from_millis(1)));
        }
    }
}

/// Does this for every row, for some of them at once.
async fn each<F: Future<Output = StoreResult<()>>>(
    rows: Vec<EntryRow>,
    take_up: impl FnMut(EntryRow) -> F,
) -> StoreResult<()> {
    stream::iter(rows).map(take_up).map(Ok).try_for_each_concurrent(LOADS, |taken_up| taken_up).await
}

async fn adopt_later(turns: &Arc<Turns>, row: EntryRow) -> StoreResult<()> {
    let runs_here = turns.workers.answer(row.meta.session).is_some_and(|here| here.seq == row.meta.seq);
    if !runs_here && let Some(session) = find(turns, row.meta.session).await? {
        work(turns, &session, Some(Job::Adopt(row)));
    }
    Ok(())
}

async fn answer_later(turns: &Arc<Turns>, row: EntryRow) -> StoreResult<()> {
    if !turns.workers.contains(row.meta.session)
        && let Some(session) = find(turns, row.meta.session).await?
    {
        kick(turns, &session);
    }
    Ok(())
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
        Err(failure) if failure.code == ErrorCode::StorageUnavailable => {
            Err(StoreError::Unavailable("a session could not be read".into()))
        }
        Err(failure) => {
            tracing::debug!(session = %id, %failure, "a row of this session was not taken up");
            Ok(None)
        }
    }
}
