//! Turns: a message that needs an answer, and the answer. The answer's own row is its lease, its journal and its place in
//! the log: whoever inserted it generates, until the row's fence says otherwise. This module knows which turns run here;
//! [`claim`] begins one, [`run`] generates, [`journal`] writes the answer, [`meter`] its calls, [`sweep`] finds what others left
//! behind.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{MessageId, Seq, SessionId};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::session::Session;
use crate::session::entry::{Entry, EntryState, FinishReason};
use crate::session::registry::Sessions;
use crate::tunables::Current;

mod claim;
mod journal;
mod meter;
mod naming;
mod prompt;
mod run;
mod sweep;
#[cfg(test)]
mod tests;

/// How often an answer that was asked to end is looked at until it has.
const END_PATIENCE: Duration = Duration::from_secs(4);

/// How answers are made.
#[derive(Debug, Clone)]
pub struct TurnSettings {
    /// This brain's name in the rows it owns.
    pub owner: String,
    /// How long a row is owned without being renewed.
    pub lease: Duration,
    /// A growing answer is saved this often …
    pub checkpoint: Duration,
    /// … or after this many new bytes.
    pub checkpoint_bytes: usize,
    /// Attempts before an answer whose owners keep dying is given up.
    pub max_attempts: u32,
    /// How often expired leases and forgotten messages are looked for.
    pub sweep_interval: Duration,
}

/// All turns of this brain.
pub struct Turns {
    sessions: Arc<Sessions>,
    current: Arc<Current>,
    settings: TurnSettings,
    metrics: Arc<Metrics>,
    working: DashMap<SessionId, Working>,
    /// Cancelled to hand running answers over to other brains.
    hand_over: CancellationToken,
}

/// Somebody works on this session's turns here.
#[derive(Debug, Default)]
struct Working {
    /// A message came meanwhile: look again before stopping.
    again: bool,
    /// Rows that became ours meanwhile: to be generated before anything new is begun.
    rows: Vec<Entry>,
    /// The answer being generated.
    answer: Option<Arc<RunningAnswer>>,
}

/// An answer that is generated here, as others on this brain may influence it.
#[derive(Debug)]
pub(crate) struct RunningAnswer {
    seq: Seq,
    /// Why it is to end, once somebody wants that.
    end: Mutex<Option<FinishReason>>,
    wanted: CancellationToken,
    ended: watch::Sender<bool>,
}

impl RunningAnswer {
    fn new(seq: Seq) -> Self {
        Self { seq, end: Mutex::new(None), wanted: CancellationToken::new(), ended: watch::Sender::new(false) }
    }

    /// Asks it to end. The first reason counts.
    fn end(&self, reason: FinishReason) {
        self.end.lock().get_or_insert(reason);
        self.wanted.cancel();
    }

    /// Resolves once it is to end.
    async fn end_wanted(&self) -> FinishReason {
        self.wanted.cancelled().await;
        self.end.lock().unwrap_or(FinishReason::Stopped)
    }
}

impl Turns {
    /// The parts it works with.
    pub fn new(sessions: Arc<Sessions>, current: Arc<Current>, settings: TurnSettings, metrics: Arc<Metrics>) -> Self {
        let hand_over = CancellationToken::new();
        Self { sessions, current, settings, metrics, working: DashMap::new(), hand_over }
    }

    /// A message of this session needs an answer: begins one, or has whoever works on the session look again.
    pub fn kick(self: &Arc<Self>, session: &Arc<Session>) {
        self.work(session, None);
    }

    /// Runs the session's turns one after the other, the given row first. Where somebody does so already, it is left to
    /// them.
    fn work(self: &Arc<Self>, session: &Arc<Session>, row: Option<Entry>) {
        match self.working.entry(session.id) {
            Place::Occupied(mut place) => {
                place.get_mut().again = true;
                place.get_mut().rows.extend(row);
                return;
            }
            Place::Vacant(place) => {
                place.insert(Working { rows: row.into_iter().collect(), ..Working::default() });
            }
        }
        let (turns, session) = (Arc::clone(self), Arc::clone(session));
        self.sessions.lifecycle.spawn(async move {
            // Removes the note also if the work panics; the sweep then finds what is left.
            let _worker = Worker { turns: &turns, session: session.id };
            loop {
                let rows = turns.working.get_mut(&session.id).map(|mut working| {
                    working.again = false;
                    std::mem::take(&mut working.rows)
                });
                for row in rows.unwrap_or_default() {
                    turns.run(&session, row).await;
                }
                turns.answer_all(&session).await;
                let idle = turns.working.remove_if(&session.id, |_, working| !working.again);
                if idle.is_some() {
                    return;
                }
                if turns.hand_over.is_cancelled() {
                    turns.working.remove(&session.id);
                    return;
                }
            }
        });
    }

    /// Answers what needs an answer, oldest first, until nothing does or somebody else is at it.
    async fn answer_all(self: &Arc<Self>, session: &Arc<Session>) {
        // What a drain leaves unanswered, another brain's sweep finds.
        while !self.hand_over.is_cancelled() {
            match self.claim_next(session).await {
                Ok(Some(row)) => self.run(session, row).await,
                Ok(None) => return,
                Err(failure) => {
                    tracing::debug!(session = %session.id, %failure, "no answer begun; the sweep will try again");
                    return;
                }
            }
        }
    }

    /// Ends the session's growing answer, wherever it is generated, keeping its text. When this returns, nothing more
    /// is appended to it. Nothing to do is a success.
    ///
    /// # Errors
    /// Where the store cannot be reached.
    pub async fn end(&self, session: &Arc<Session>, reason: FinishReason) -> Result<(), Failure> {
        let here = self.working.get(&session.id).and_then(|working| working.answer.clone());
        if let Some(answer) = here {
            answer.end(reason);
            let mut ended = answer.ended.subscribe();
            let waited = tokio::time::timeout(END_PATIENCE, ended.wait_for(|ended| *ended)).await;
            waited.map_err(|_| ErrorCode::StorageUnavailable)?.map_err(|_| ErrorCode::Internal)?;
        }
        // Also after it has ended here: another brain may have taken the row over and go on.
        self.end_elsewhere(session, reason).await
    }

    /// The answer is generated by another brain, or by nobody any more: takes its row away from whoever has it.
    async fn end_elsewhere(&self, session: &Arc<Session>, reason: FinishReason) -> Result<(), Failure> {
        let store = &self.sessions.store;
        loop {
            let row =
                store.streaming_answer(session.id).await.map_err(|error| self.sessions.storage(session, &error))?;
            let Some(row) = row else { return Ok(()) };
            let mut entry = session.unseal(row);
            // One that this brain's log does not know of yet can be shown only in its place.
            self.sessions.catch_up(session).await?;
            let fence = journal::finish_as(&mut entry, EntryState::Final, Some(reason), None);
            if self.sessions.replace_answer(session, &entry, fence).await? {
                session.apply(&entry);
                return Ok(());
            }
        }
    }

    /// Answers the session's last user message again, as a new entry with this id. Asked again with the same id, it has
    /// been done.
    ///
    /// # Errors
    /// `conflict` while an answer is growing, `not_found` where there is nothing to answer.
    pub async fn regenerate(
        self: &Arc<Self>,
        session: &Arc<Session>,
        model_id: String,
        id: MessageId,
    ) -> Result<(), Failure> {
        if let Some(row) = self.claim_again(session, model_id, id).await? {
            self.work(session, Some(row));
        }
        Ok(())
    }

    /// The session is about to be erased: what is generated for it is of no use.
    pub async fn abandon(&self, session: &Arc<Session>) {
        if let Err(failure) = self.end(session, FinishReason::Stopped).await {
            tracing::debug!(session = %session.id, %failure, "an answer of an erased session did not end cleanly");
        }
    }

    /// Gives running answers up so that other brains take them over at once.
    pub fn hand_over(&self) {
        self.hand_over.cancel();
    }

    /// Is this session worked on here?
    fn works_on(&self, session: SessionId) -> bool {
        self.working.contains_key(&session)
    }

    /// How many sessions are worked on here.
    pub fn count(&self) -> usize {
        self.working.len()
    }

    /// Is this very answer generated here?
    fn runs_here(&self, session: SessionId, seq: Seq) -> bool {
        self.working.get(&session).is_some_and(|working| working.answer.as_ref().is_some_and(|here| here.seq == seq))
    }
}

fn still_answering() -> Failure {
    Failure::with_message(ErrorCode::Conflict, "An answer is being generated; stop it first.")
}

/// The note that somebody works on a session.
struct Worker<'a> {
    turns: &'a Turns,
    session: SessionId,
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.turns.working.remove(&self.session);
        }
    }
}
