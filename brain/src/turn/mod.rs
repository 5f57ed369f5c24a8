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
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::session::Session;
use crate::session::entry::{Entry, EntryState, FinishReason};
use crate::session::registry::Sessions;
use crate::store::EntryRow;
use crate::tunables::Current;

mod claim;
mod journal;
mod lost;
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

/// Somebody works on this session's turns here. The note is there before a row of an answer is ours, and goes when none is
/// any more: whoever finds none can be sure that nothing of this session grows here.
#[derive(Debug, Default)]
struct Working {
    /// A message came meanwhile: look again before stopping.
    again: bool,
    /// What is to be done before anything new is begun.
    jobs: Vec<Job>,
    /// The answer being generated; `None` while one is looked for.
    answer: watch::Sender<Option<Arc<RunningAnswer>>>,
}

/// An answer that is to be generated here, besides those of messages that wait for one.
#[derive(Debug)]
enum Job {
    /// Its owner is gone.
    Adopt(EntryRow),
    /// The last message is to be answered again.
    Regenerate(Regeneration),
}

/// A wish to have the last message answered again.
#[derive(Debug)]
struct Regeneration {
    model_id: String,
    /// The id of the entry, so that the wish can be repeated.
    id: MessageId,
    /// Told once the answer has begun, or cannot.
    begun: oneshot::Sender<Result<(), Failure>>,
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

    /// Runs the session's turns one after the other, the given job first. Where somebody does so already, it is left to
    /// them.
    fn work(self: &Arc<Self>, session: &Arc<Session>, job: Option<Job>) {
        match self.working.entry(session.id) {
            Place::Occupied(mut place) => {
                place.get_mut().again = true;
                place.get_mut().jobs.extend(job);
                return;
            }
            Place::Vacant(place) => {
                place.insert(Working { jobs: job.into_iter().collect(), ..Working::default() });
            }
        }
        let (turns, session) = (Arc::clone(self), Arc::clone(session));
        self.sessions.lifecycle.spawn(async move {
            // Removes the note also if the work panics; the sweep then finds what is left.
            let _worker = Worker { turns: &turns, session: session.id };
            loop {
                let jobs = turns.working.get_mut(&session.id).map(|mut working| {
                    working.again = false;
                    std::mem::take(&mut working.jobs)
                });
                for job in jobs.unwrap_or_default() {
                    if let Some(row) = turns.begin(&session, job).await {
                        turns.run(&session, row).await;
                    }
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

    /// Does what makes an answer's row ours; `None`: it is not.
    async fn begin(&self, session: &Arc<Session>, job: Job) -> Option<Entry> {
        match job {
            Job::Adopt(row) => self.adopt(session, row).await.unwrap_or_else(|failure| {
                tracing::debug!(session = %session.id, %failure, "an expired answer was not taken up");
                None
            }),
            Job::Regenerate(Regeneration { model_id, id, begun }) => {
                let (outcome, row) = match self.claim_again(session, model_id, id).await {
                    Ok(row) => (Ok(()), row),
                    Err(failure) => (Err(failure), None),
                };
                // Who has stopped waiting asks again, and learns that it is done.
                let _told = begun.send(outcome);
                row
            }
        }
    }

    /// An answer begins: nobody waits behind it to have one generated again.
    fn refuse_regenerations(&self, session: &Session) {
        let Some(mut working) = self.working.get_mut(&session.id) else { return };
        let (wishes, jobs) = std::mem::take(&mut working.jobs)
            .into_iter()
            .partition::<Vec<_>, _>(|job| matches!(job, Job::Regenerate(_)));
        working.jobs = jobs;
        for wish in wishes {
            if let Job::Regenerate(wish) = wish {
                // Who has stopped waiting does not want to know.
                let _told = wish.begun.send(Err(still_answering()));
            }
        }
    }

    /// Answers what needs an answer, oldest first, until nothing does or somebody else is at it.
    async fn answer_all(self: &Arc<Self>, session: &Arc<Session>) {
        // What a drain leaves unanswered, another brain's sweep finds.
        while !self.hand_over.is_cancelled() {
            match self.claim_next(session).await {
                Ok(Some(row)) => {
                    self.refuse_regenerations(session);
                    self.run(session, row).await;
                }
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
        self.end_here(session, reason).await?;
        // Also after it has ended here: another brain may have taken the row over and go on.
        self.end_elsewhere(session, reason, None).await
    }

    /// As [`Turns::end`], but what begins after it stays: a message that waited behind the answer gets its own.
    ///
    /// # Errors
    /// Where the store cannot be reached.
    pub async fn stop(&self, session: &Arc<Session>) -> Result<(), Failure> {
        let ended = self.end_here(session, FinishReason::Stopped).await?;
        self.end_elsewhere(session, FinishReason::Stopped, ended).await
    }

    /// Ends what is generated here; gives its place. An answer whose row is just becoming ours is waited for: its row must not be taken away
    /// while it is about to show text.
    async fn end_here(&self, session: &Session, reason: FinishReason) -> Result<Option<Seq>, Failure> {
        let Some(mut answer) = self.working.get(&session.id).map(|working| working.answer.subscribe()) else {
            return Ok(None);
        };
        let ending = async {
            // An error means that nothing is worked on any more.
            let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
            let Some(answer) = answer else { return Ok(None) };
            answer.end(reason);
            answer.ended.subscribe().wait_for(|ended| *ended).await.map_err(|_| ErrorCode::Internal)?;
            Ok(Some(answer.seq))
        };
        tokio::time::timeout(END_PATIENCE, ending).await.map_err(|_| ErrorCode::StorageUnavailable)?
    }

    /// The answer is generated by another brain, or by nobody any more: takes its row away from whoever has it.
    /// `only`: if it is the one at this place.
    async fn end_elsewhere(
        &self,
        session: &Arc<Session>,
        reason: FinishReason,
        only: Option<Seq>,
    ) -> Result<(), Failure> {
        let store = &self.sessions.store;
        loop {
            let row =
                store.streaming_answer(session.id).await.map_err(|error| self.sessions.storage(session, &error))?;
            let Some(row) = row.filter(|row| only.is_none_or(|seq| row.meta.seq == seq)) else { return Ok(()) };
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
        if self.is_answering(session.id) {
            // It has the log's one place for a growing answer. Only what an earlier try of this wish began is fine.
            return if self.was_claimed(session, id).await? { Ok(()) } else { Err(still_answering()) };
        }
        let (begun, outcome) = oneshot::channel();
        self.work(session, Some(Job::Regenerate(Regeneration { model_id, id, begun })));
        outcome.await.map_err(|_| ErrorCode::Unavailable)?
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
        self.answer_of(session).is_some_and(|here| here.seq == seq)
    }

    /// Is any answer of this session generated here?
    fn is_answering(&self, session: SessionId) -> bool {
        self.answer_of(session).is_some()
    }

    fn answer_of(&self, session: SessionId) -> Option<Arc<RunningAnswer>> {
        self.working.get(&session).and_then(|working| working.answer.borrow().clone())
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
