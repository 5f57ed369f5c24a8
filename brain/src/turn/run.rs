//! Generating one answer, from the claimed row to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::Seq;

use super::grow::{GrowEnd, Growing, PAUSE};
use super::journal::{FinalState, Journal, RowLost, millis};
use super::meter::answer_meter;
use super::naming::name_session;
use super::prompt::conversation;
use super::turns::Turns;
use super::workers::RunningAnswer;
use crate::ledger::CallFinish;
use crate::llm::answer::{AnswerEvent, AnswerRequest, Answering};
use crate::log::entry::{Entry, EntryState, FinishReason, TokenUsage};
use crate::session::catch_up::read_again;
use crate::session::handle::Session;
use crate::session::usage;

/// How long to wait for a call to end after it was stopped. Only a store that does not answer can take so long.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// How long to wait for the reason why an answer was lost. The provider is stopped after that.
const LOST_PATIENCE: Duration = Duration::from_millis(500);

/// Generates the answer of a row that this brain has just claimed.
pub(super) async fn run(turns: &Arc<Turns>, session: &Arc<Session>, row: Entry) {
    let Some(journal) = Journal::new(Arc::clone(session), row, turns.sessions.now()) else { return };
    let running = Arc::new(RunningAnswer::new(journal.entry().meta.seq));
    turns.workers.set_answer(session.id, Some(Arc::clone(&running)));
    turns.workers.refuse_regenerations(session.id);
    turns.metrics.answer_begun();
    let outcome = generate(turns, session, journal, &running).await;
    turns.metrics.answer_ended(outcome);
    turns.workers.set_answer(session.id, None);
    running.set_ended();
}

/// Generates and ends the answer; returns the outcome for metrics and the log.
async fn generate(
    turns: &Arc<Turns>,
    session: &Arc<Session>,
    mut journal: Journal,
    running: &RunningAnswer,
) -> &'static str {
    let (seq, begun) = (running.seq, Instant::now());
    let mut usage = None;
    let end = match prepare_patiently(turns, session, &journal, running).await {
        Ok(ask) => {
            let mut answering = Answering::start(ask);
            let mut growing = Growing { turns, session, running, journal: &mut journal, usage: &mut usage };
            let end = growing.grow(&mut answering).await;
            end_call(turns, session, &mut answering, seq, &end, &mut usage).await;
            // Before the row is written: a store that does not answer must not keep the provider's connection open.
            settle(turns, session, answering);
            end
        }
        Err(end) => end,
    };
    let model_id = model_id(journal.entry()).to_owned();
    let (outcome, ended) = write_end(turns, journal, end, usage).await;
    if ended == Err(RowLost) {
        // Another brain has the answer now: show what became of it.
        if let Err(failure) = read_again(turns.store(), session, seq).await {
            tracing::debug!(session = %session.id, seq, %failure, "an answer that was lost could not be read");
        }
    } else if outcome == FinishReason::Stop.as_str() {
        name_session(turns, session);
    }
    let outcome = if ended.is_err() { "lost" } else { outcome };
    tracing::info!(session = %session.id, seq, model_id, outcome, ms = millis(begun.elapsed()), "turn");
    outcome
}

/// Writes the end of the answer to its row.
async fn write_end(
    turns: &Turns,
    journal: Journal,
    end: GrowEnd,
    usage: Option<TokenUsage>,
) -> (&'static str, Result<(), RowLost>) {
    match end {
        GrowEnd::Finished(reason) => {
            let end = FinalState { state: EntryState::Final, finish: Some(reason), error: None, usage };
            (reason.as_str(), journal.finish(turns, end).await)
        }
        GrowEnd::Failed(error) => {
            let end = FinalState { state: EntryState::Failed, finish: None, error: Some(error), usage };
            ("failed", journal.finish(turns, end).await)
        }
        GrowEnd::HandedOver => {
            journal.release(turns).await;
            ("handed_over", Ok(()))
        }
        GrowEnd::Lost => ("lost", Err(RowLost)),
    }
}

/// [`prepare`], repeated while the store cannot be reached and the lease lasts.
async fn prepare_patiently(
    turns: &Turns,
    session: &Arc<Session>,
    journal: &Journal,
    running: &RunningAnswer,
) -> Result<AnswerRequest, GrowEnd> {
    loop {
        match prepare(turns, session, journal).await {
            Ok(ask) => return Ok(ask),
            Err(failure) if failure.code == ErrorCode::StorageUnavailable && journal.owned() => {}
            Err(failure) => return Err(GrowEnd::Failed(failure.code.into())),
        }
        tokio::select! {
            reason = running.end_requested() => return Err(GrowEnd::Finished(reason)),
            () = turns.hand_over.cancelled() => return Err(GrowEnd::HandedOver),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// The models and what they are asked. The log is read after the claim, so it holds everything before the answer.
async fn prepare(turns: &Turns, session: &Arc<Session>, journal: &Journal) -> Result<AnswerRequest, Failure> {
    let row = journal.entry();
    let models = turns.live_config.get().catalog.candidates(model_id(row));
    if models.is_empty() {
        return Err(ErrorCode::ModelUnavailable.into());
    }
    let conversation = Arc::new(conversation(turns.store(), session, row, &models).await?);
    let attempt = row.meta.answer().map_or(1, |answer| answer.attempt);
    Ok(AnswerRequest {
        session: session.id,
        user: session.owner.to_string(),
        models,
        conversation,
        meter: Arc::new(answer_meter(turns, session, row.meta.seq, attempt)),
    })
}

/// Ends the call that may still be under way, and takes its usage from it. A call that has ended by itself is not changed.
async fn end_call(
    turns: &Turns,
    session: &Session,
    answering: &mut Answering,
    seq: Seq,
    end: &GrowEnd,
    usage: &mut Option<TokenUsage>,
) {
    let finish = match end {
        GrowEnd::Finished(reason) => CallFinish::of(*reason),
        GrowEnd::Failed(_) => CallFinish::Failed,
        GrowEnd::Lost => {
            // The provider must not generate on while the store does not answer.
            let finish = tokio::time::timeout(LOST_PATIENCE, finish_of_lost(turns, session, seq)).await;
            finish.unwrap_or(CallFinish::Lost)
        }
        GrowEnd::HandedOver => CallFinish::HandedOver,
    };
    answering.stop(finish);
    if usage.is_some() || matches!(end, GrowEnd::Lost | GrowEnd::HandedOver) {
        return;
    }
    let ending = async {
        while let Some(piece) = answering.next().await {
            if let AnswerEvent::End(end) = piece {
                *usage = end.usage;
                return;
            }
        }
    };
    if tokio::time::timeout(STOP_PATIENCE, ending).await.is_err() {
        tracing::debug!("an answer was ended without its usage, because the store does not answer");
    }
}

/// How to record the call for an answer that another brain has: that brain may have stopped it for a participant, or may have
/// taken this brain for dead.
async fn finish_of_lost(turns: &Turns, session: &Session, seq: Seq) -> CallFinish {
    let row = turns.store().entry(session.id, seq).await.ok().flatten();
    let finish = row.and_then(|row| row.meta.answer().and_then(|answer| answer.finish));
    match finish {
        Some(FinishReason::Stopped) => CallFinish::Stopped,
        Some(FinishReason::Interrupted) => CallFinish::Interrupted,
        _ => CallFinish::Lost,
    }
}

/// Has the provider told to stop and the call recorded, without waiting for it.
fn settle(turns: &Turns, session: &Arc<Session>, answering: Answering) {
    let (store, session) = (Arc::clone(&turns.sessions.store), Arc::clone(session));
    turns.sessions.lifecycle.spawn(async move {
        answering.settle().await;
        usage::refresh(store.as_ref(), &session).await;
    });
}

fn model_id(entry: &Entry) -> &str {
    entry.meta.answer().map(|answer| answer.model_id.as_str()).unwrap_or_default()
}
