//! Finding what was left behind: answers whose owner died, and messages nobody began to answer. Both are indexed queries
//! at a jittered pace; whoever finds something takes it by a compare-and-set, so it does not matter how many look.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::Failure;
use rand::RngExt;

use super::{Job, Turns, journal};
use crate::session::Session;
use crate::session::entry::{Content, Entry, EntryState, FinishReason};
use crate::session::state::Intent;
use crate::store::{EntryRow, StoreResult};

/// Rows taken up in one round.
const ROUND: u32 = 100;
/// A message is forgotten when its answer has not begun after this time; until then its own brain is at it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);

impl Turns {
    /// Looks again and again, until the drain.
    pub async fn sweep(self: Arc<Self>) {
        let drain = self.sessions.lifecycle.draining().clone();
        let mut from = Timestamp::default();
        loop {
            let pause = self.settings.sweep_interval.mul_f64(rand::rng().random_range(0.75..1.25));
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            from = self.sweep_once(from).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "the store cannot be swept");
                Timestamp::default()
            });
            self.sessions.tidy();
        }
    }

    /// One round; `from` says where it begins to look for forgotten messages, the result where the next one does. Many
    /// messages may wait behind running answers, and those behind them must be seen too: a full page is followed by the
    /// next one, the last by the first.
    async fn sweep_once(self: &Arc<Self>, from: Timestamp) -> StoreResult<Timestamp> {
        let now = self.sessions.read_clock().await?;
        for row in self.sessions.store.expired_answers(now, ROUND).await? {
            let id = row.meta.session;
            if self.runs_here(id, row.meta.seq) {
                continue;
            }
            match self.sessions.get(id).await {
                Ok(Some(session)) => self.work(&session, Some(Job::Adopt(row))),
                // Erased while this was being written: out with it too.
                Ok(None) => self.sessions.store.erase_session(id).await?,
                Err(failure) => tracing::debug!(%failure, "an expired answer was not taken up"),
            }
        }
        let due = self.sessions.store.unanswered_between(from, now.minus(FORGOTTEN_AFTER), ROUND).await?;
        let full = due.len() >= ROUND as usize;
        // At least one millisecond on, should a whole page be of one.
        let next = due.last().filter(|_| full).map(|last| last.meta.created_at.max(Timestamp(from.0 + 1)));
        let forgotten = due.into_iter().filter(|row| !self.works_on(row.meta.session));
        for row in forgotten {
            match self.sessions.get(row.meta.session).await {
                Ok(Some(session)) => self.kick(&session),
                // Erased while this was being written: out with it too.
                Ok(None) => self.sessions.store.erase_session(row.meta.session).await?,
                Err(failure) => tracing::debug!(%failure, "a forgotten message was not taken up"),
            }
        }
        self.settle_expired(now).await?;
        Ok(next.unwrap_or_default())
    }

    /// Takes over an answer whose owner is gone: answers anew, or ends it with the text it has where no model may.
    pub(super) async fn adopt(&self, session: &Arc<Session>, row: EntryRow) -> Result<Option<Entry>, Failure> {
        self.sessions.catch_up(session).await?;
        let mut entry = session.unseal(row);
        let Some(answer) = entry.meta.answer() else { return Ok(None) };
        let allowed = session.read(|live| live.state.allows(Intent::Answer(answer.reply_to))).is_ok();
        // The fence counts the owners it has had; attempts are also begun by fallbacks.
        if !allowed || answer.fence >= u64::from(self.settings.max_attempts) {
            let fence = journal::finish_as(&mut entry, EntryState::Final, Some(FinishReason::Interrupted), None);
            if self.sessions.replace_answer(session, &entry, fence).await? {
                session.apply(&entry);
                self.settle_lost(session, &entry).await;
            }
            return Ok(None);
        }
        let lost = entry.clone();
        let fence = self.begin_anew(&mut entry);
        if !self.sessions.replace_answer(session, &entry, fence).await? {
            return Ok(None);
        }
        tracing::info!(session = %session.id, seq = entry.meta.seq, "took over an answer whose owner is gone");
        self.metrics.answer_adopted();
        session.apply(&entry);
        self.settle_lost(session, &lost).await;
        Ok(Some(entry))
    }

    /// Makes the row ours with an empty text; gives the fence it had.
    fn begin_anew(&self, entry: &mut Entry) -> u64 {
        let lease_until = self.sessions.now().plus(self.settings.lease);
        entry.meta.rev += 1;
        entry.content = Content::Text(String::new());
        let Some(answer) = entry.meta.answer_mut() else { return 0 };
        let fence = answer.fence;
        answer.fence += 1;
        answer.attempt += 1;
        answer.next_index = 0;
        answer.owner.clone_from(&self.settings.owner);
        if let Some(asked) = answer.asked_model.take() {
            // A fallback was speaking: the model that was asked gets its chance again.
            answer.model_id = asked;
            answer.conversation = None;
        }
        answer.lease_until = lease_until;
        fence
    }
}
