//! The worker of a session: generates its answers one after the other, and stops when none is due.

use std::sync::Arc;

use chatbox_shared::failure::ErrorCode;
use chatbox_shared::ids::SessionId;

use super::adopt::adopt;
use super::claim::{claim_again, claim_next};
use super::run::run;
use super::turns::Turns;
use super::workers::{Job, Regeneration};
use crate::log::entry::Entry;
use crate::session::handle::Session;

/// A message of this session needs an answer. Starts a worker, or has the present worker look again.
pub fn kick(turns: &Arc<Turns>, session: &Arc<Session>) {
    work(turns, session, None);
}

/// Gives the session's worker a job, which it does before it answers messages. Starts a worker if there is none.
pub(super) fn work(turns: &Arc<Turns>, session: &Arc<Session>, job: Option<Job>) {
    if !turns.workers.give(session.id, job) {
        return;
    }
    let (turns, session) = (Arc::clone(turns), Arc::clone(session));
    turns.sessions.lifecycle.clone().spawn(async move {
        let _guard = PanicGuard { turns: &turns, session: session.id };
        run_worker(&turns, &session).await;
    });
}

async fn run_worker(turns: &Arc<Turns>, session: &Arc<Session>) {
    loop {
        while let Some(job) = turns.workers.next_job(session.id) {
            if let Some(row) = begin(turns, session, job).await {
                run(turns, session, row).await;
            }
        }
        answer_all(turns, session).await;
        if turns.workers.remove_if_idle(session.id) {
            return;
        }
        if is_draining(turns) {
            turns.workers.refuse_regenerations(session.id);
            turns.workers.remove(session.id);
            return;
        }
    }
}

/// During a drain no answer begins here. Messages stay unanswered; the sweep of another brain finds them.
fn is_draining(turns: &Turns) -> bool {
    turns.sessions.lifecycle.draining().is_cancelled() || turns.hand_over.is_cancelled()
}

/// Claims the row that the job is about. `None`: there is nothing to generate.
async fn begin(turns: &Turns, session: &Arc<Session>, job: Job) -> Option<Entry> {
    match job {
        Job::Adopt(_) if is_draining(turns) => None,
        Job::Adopt(row) => {
            let _permit = turns.adopting.acquire().await.ok()?;
            adopt(turns, session, row).await.unwrap_or_else(|failure| {
                tracing::debug!(session = %session.id, %failure, "an expired answer was not taken over");
                None
            })
        }
        Job::Regenerate(Regeneration { begun, .. }) if is_draining(turns) => {
            // The requester may have stopped waiting.
            let _told = begun.send(Err(ErrorCode::Unavailable.into()));
            None
        }
        Job::Regenerate(Regeneration { model_id, id, begun }) => {
            let (outcome, row) = match claim_again(turns, session, model_id, id).await {
                Ok(row) => (Ok(()), row),
                Err(failure) => (Err(failure), None),
            };
            // If the requester has stopped waiting, its repeated request finds the row by its id.
            let _told = begun.send(outcome);
            row
        }
    }
}

/// Answers the messages that need it, oldest first, until none does or another brain answers.
async fn answer_all(turns: &Arc<Turns>, session: &Arc<Session>) {
    while !is_draining(turns) {
        match claim_next(turns, session).await {
            Ok(Some(row)) => run(turns, session, row).await,
            Ok(None) => return,
            Err(failure) => {
                tracing::debug!(session = %session.id, %failure, "no answer begun; the sweep will try again");
                return;
            }
        }
    }
}

/// Removes the worker if its task panics. The sweep then finds what is left to do.
struct PanicGuard<'a> {
    turns: &'a Turns,
    session: SessionId,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.turns.workers.remove(self.session);
        }
    }
}
