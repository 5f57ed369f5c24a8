//! The workers of this brain: which sessions have one, what it still has to do, and which answer it generates.

use std::collections::VecDeque;
use std::sync::Arc;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{MessageId, Seq, SessionId};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::log::entry::FinishReason;
use crate::store::EntryRow;

/// The worker of a session. It is present from before this brain claims an answer's row until after its last answer has
/// ended. Absent: this brain generates nothing for the session.
#[derive(Debug, Default)]
struct SessionWorker {
    /// A message or a job came meanwhile: look again before stopping.
    again: bool,
    /// What must be done before a message is answered.
    jobs: VecDeque<Job>,
    /// The answer being generated; `None` between two answers.
    answer: watch::Sender<Option<Arc<RunningAnswer>>>,
}

impl SessionWorker {
    /// Adds a job. The sweep finds an answer again and again until it is taken over: of its jobs only the latest counts.
    fn add(&mut self, job: Option<Job>) {
        if let Some(Job::Adopt(row)) = &job {
            self.jobs.retain(|job| !matches!(job, Job::Adopt(queued) if queued.meta.seq == row.meta.seq));
        }
        self.jobs.extend(job);
    }
}

/// An answer to generate other than the one to the oldest unanswered message.
#[derive(Debug)]
pub(super) enum Job {
    /// Takes over an answer whose owner is gone.
    Adopt(EntryRow),
    /// Answers the last message again.
    Regenerate(Regeneration),
}

/// A request to answer the last message again.
#[derive(Debug)]
pub(super) struct Regeneration {
    pub(super) model_id: String,
    /// The id of the new entry. A repeated request has the same id.
    pub(super) id: MessageId,
    /// Told once the answer has begun, or cannot begin.
    pub(super) begun: oneshot::Sender<Result<(), Failure>>,
}

/// An answer that is generated on this brain.
#[derive(Debug)]
pub(super) struct RunningAnswer {
    pub(super) seq: Seq,
    /// Why the answer must end. The first reason counts.
    end_reason: Mutex<Option<FinishReason>>,
    end_requested: CancellationToken,
    ended: watch::Sender<bool>,
}

impl RunningAnswer {
    pub(super) fn new(seq: Seq) -> Self {
        let end_requested = CancellationToken::new();
        Self { seq, end_reason: Mutex::new(None), end_requested, ended: watch::Sender::new(false) }
    }

    /// Requests the end of the answer.
    pub(super) fn request_end(&self, reason: FinishReason) {
        self.end_reason.lock().get_or_insert(reason);
        self.end_requested.cancel();
    }

    /// Waits until the end is requested.
    pub(super) async fn end_requested(&self) -> FinishReason {
        self.end_requested.cancelled().await;
        self.end_reason.lock().unwrap_or(FinishReason::Stopped)
    }

    /// Marks the answer as ended.
    pub(super) fn set_ended(&self) {
        self.ended.send_replace(true);
    }

    /// Waits until the answer has ended.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // `self` holds the sender, so the channel cannot be closed.
        let _ended = ended.wait_for(|ended| *ended).await;
    }
}

/// The workers by session.
#[derive(Debug, Default)]
pub(super) struct Workers {
    sessions: DashMap<SessionId, SessionWorker>,
}

impl Workers {
    /// Gives a session work. `true`: the session had no worker, and the caller must run one.
    pub(super) fn give(&self, session: SessionId, job: Option<Job>) -> bool {
        match self.sessions.entry(session) {
            MapEntry::Occupied(mut worker) => {
                worker.get_mut().again = true;
                worker.get_mut().add(job);
                false
            }
            MapEntry::Vacant(place) => {
                place.insert(SessionWorker { jobs: job.into_iter().collect(), ..SessionWorker::default() });
                true
            }
        }
    }

    /// Takes the next job. The others stay, so that [`Workers::refuse_regenerations`] finds them. Work that is given after this
    /// sets `again`.
    pub(super) fn next_job(&self, session: SessionId) -> Option<Job> {
        let mut worker = self.sessions.get_mut(&session)?;
        worker.again = false;
        worker.jobs.pop_front()
    }

    /// Removes the worker if it has no job and no work was given since [`Workers::next_job`]. `true`: it was removed.
    pub(super) fn remove_if_idle(&self, session: SessionId) -> bool {
        self.sessions.remove_if(&session, |_, worker| !worker.again && worker.jobs.is_empty()).is_some()
    }

    /// Removes the worker with the work it has.
    pub(super) fn remove(&self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// Refuses the waiting requests for a regeneration: another answer begins.
    pub(super) fn refuse_regenerations(&self, session: SessionId) {
        let Some(mut worker) = self.sessions.get_mut(&session) else { return };
        for job in std::mem::take(&mut worker.jobs) {
            match job {
                Job::Regenerate(regeneration) => {
                    // The requester may have stopped waiting.
                    let _told = regeneration.begun.send(Err(still_answering()));
                }
                Job::Adopt(_) => worker.jobs.push_back(job),
            }
        }
    }

    /// Sets the answer that the session's worker generates.
    pub(super) fn set_answer(&self, session: SessionId, answer: Option<Arc<RunningAnswer>>) {
        if let Some(worker) = self.sessions.get(&session) {
            worker.answer.send_replace(answer);
        }
    }

    /// The answer that the session's worker generates.
    pub(super) fn answer(&self, session: SessionId) -> Option<Arc<RunningAnswer>> {
        self.sessions.get(&session).and_then(|worker| worker.answer.borrow().clone())
    }

    /// Waits for the session's worker to generate an answer. `None`: the session has no worker, or the worker stopped without
    /// another answer.
    pub(super) async fn wait_for_answer(&self, session: SessionId) -> Option<Arc<RunningAnswer>> {
        let mut answer = self.sessions.get(&session).map(|worker| worker.answer.subscribe())?;
        // The channel closes when the worker is removed.
        answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
    }

    /// Whether the session has a worker.
    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// How many sessions have a worker.
    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Removes all workers, as the end of the process does.
    #[cfg(test)]
    pub(super) fn clear(&self) {
        self.sessions.clear();
    }
}

/// The refusal of a regeneration while an answer grows.
pub(super) fn still_answering() -> Failure {
    Failure::with_message(ErrorCode::Conflict, "An answer is being generated; stop it first.")
}
