//! The worker of a session: generates its answers one after the other, and stops when none is due.

use std::sync::Arc;

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
        for job in turns.workers.take_jobs(session.id) {
            if let Some(row) = begin(turns, session, job).await {
                run(turns, session, row).await;
            }
        }
        answer_all(turns, session).await;
        if turns.workers.remove_if_idle(session.id) {
            return;
        }
        if turns.hand_over.is_cancelled() {
            turns.workers.remove(session.id);
            return;
        }
    }
}

/// Claims the row that the job is about. `None`: there is nothing to generate.
async fn begin(turns: &Turns, session: &Arc<Session>, job: Job) -> Option<Entry> {
    match job {
        Job::Adopt(row) => adopt(turns, session, row).await.unwrap_or_else(|failure| {
            tracing::debug!(session = %session.id, %failure, "an expired answer was not taken over");
            None
        }),
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
    // During a hand-over messages stay unanswered; the sweep of another brain finds them.
    while !turns.hand_over.is_cancelled() {
        match claim_next(turns, session).await {
            Ok(Some(row)) => {
                turns.workers.refuse_regenerations(session.id);
                run(turns, session, row).await;
            }
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
