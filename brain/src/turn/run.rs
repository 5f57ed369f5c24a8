//! Generating one answer: from the claimed row to its end, whatever the provider, the store, the participants or other
//! brains do meanwhile.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::Seq;

use super::journal::{End, Journal, Lost, millis};
use super::{RunningAnswer, Turns};
use crate::ledger::CallFinish;
use crate::llm::answer::{AnswerError, AnswerEvent, AnswerOutcome, AnswerRequest, Answering};
use crate::llm::model::Model;
use crate::session::Session;
use crate::session::entry::{Entry, EntryState, FinishReason, TokenUsage};

/// How long to wait before a store that was away is asked again.
const PAUSE: Duration = Duration::from_millis(250);
/// How long an answer that is to end is waited for; only a store that does not answer can take so long.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

type Save = Pin<Box<dyn Future<Output = (Instant, Result<bool, Failure>)> + Send>>;

/// Everything that can happen while an answer grows.
enum Event {
    Piece(Option<AnswerEvent>),
    Saved(Instant, Result<bool, Failure>),
    SaveDue,
    EndWanted(FinishReason),
    HandOver,
}

/// How the growing came to an end.
enum Ending {
    Finished(FinishReason),
    Failed(AnswerError),
    Lost,
    HandedOver,
}

impl Turns {
    /// Generates the answer of a row this brain has just written, to its end.
    pub(super) async fn run(self: &Arc<Self>, session: &Arc<Session>, row: Entry) {
        let Some(journal) = Journal::new(Arc::clone(session), row, self.sessions.now()) else { return };
        let running = Arc::new(RunningAnswer::new(journal.entry().meta.seq));
        self.set_running(session, Some(Arc::clone(&running)));
        self.metrics.answer_begun();
        let outcome = self.generate(session, journal, &running).await;
        self.metrics.answer_ended(outcome);
        self.set_running(session, None);
        running.ended.send_replace(true);
    }

    fn set_running(&self, session: &Session, running: Option<Arc<RunningAnswer>>) {
        if let Some(working) = self.working.get(&session.id) {
            working.answer.send_replace(running);
        }
    }

    async fn generate(
        self: &Arc<Self>,
        session: &Arc<Session>,
        mut journal: Journal,
        running: &RunningAnswer,
    ) -> &'static str {
        let seq = running.seq;
        let begun = Instant::now();
        let mut answering = None;
        let mut usage = None;
        let ending = match self.prepare_patiently(session, &journal, running).await {
            Ok(ask) => {
                let answering = answering.insert(Answering::start(ask));
                let ending = self.grow(session, &mut journal, running, answering, &mut usage).await;
                self.end_call(session, answering, seq, &ending, &mut usage).await;
                ending
            }
            Err(ending) => ending,
        };
        if let Some(answering) = answering {
            // At once: a store that is away must not keep the provider's connection open.
            self.settle(session, answering);
        }
        let model_id = model_id(journal.entry()).to_owned();
        let end = |state, finish, fault| End { state, finish, fault, usage };
        let (outcome, finished) = match ending {
            Ending::Finished(reason) => {
                (reason.as_str(), journal.finish(self, end(EntryState::Final, Some(reason), None)).await)
            }
            Ending::Failed(fault) => ("failed", journal.finish(self, end(EntryState::Failed, None, Some(fault))).await),
            Ending::HandedOver => {
                journal.release(self).await;
                ("handed_over", Ok(()))
            }
            Ending::Lost => ("lost", Err(Lost)),
        };
        if finished == Err(Lost) {
            // Somebody else has the answer now: what became of it is shown.
            if let Err(failure) = self.sessions.read_again(session, seq).await {
                tracing::debug!(session = %session.id, seq, %failure, "an answer that was lost could not be read");
            }
        } else if outcome == FinishReason::Stop.as_str() {
            self.think_of_a_name(session);
        }
        let outcome = if finished.is_err() { "lost" } else { outcome };
        tracing::info!(session = %session.id, seq, model_id, outcome, ms = millis(begun.elapsed()), "turn");
        outcome
    }

    /// [`Turns::prepare`], again while the store is away for a moment.
    async fn prepare_patiently(
        &self,
        session: &Arc<Session>,
        journal: &Journal,
        running: &RunningAnswer,
    ) -> Result<AnswerRequest, Ending> {
        loop {
            match self.prepare(session, journal).await {
                Ok(ask) => return Ok(ask),
                Err(failure) if failure.code == ErrorCode::StorageUnavailable && journal.owned() => {}
                Err(failure) => return Err(Ending::Failed(failure.code.into())),
            }
            tokio::select! {
                reason = running.end_wanted() => return Err(Ending::Finished(reason)),
                () = self.hand_over.cancelled() => return Err(Ending::HandedOver),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// The models and what they are asked. The log is read after the claim, so it holds everything that stands before the
    /// answer.
    async fn prepare(&self, session: &Arc<Session>, journal: &Journal) -> Result<AnswerRequest, Failure> {
        let row = journal.entry();
        let models = self.current.get().catalog.candidates(model_id(row));
        if models.is_empty() {
            return Err(ErrorCode::ModelUnavailable.into());
        }
        let conversation = Arc::new(self.conversation(session, row, &models).await?);
        let attempt = row.meta.answer().map_or(1, |answer| answer.attempt);
        Ok(AnswerRequest {
            session: session.id,
            user: session.owner.to_string(),
            models,
            conversation,
            meter: Arc::new(self.answer_meter(session, row.meta.seq, attempt)),
        })
    }

    async fn grow(
        &self,
        session: &Arc<Session>,
        journal: &mut Journal,
        running: &RunningAnswer,
        answering: &mut Answering,
        usage: &mut Option<TokenUsage>,
    ) -> Ending {
        let mut save: Option<Save> = None;
        let mut due =
            tokio::time::interval_at(tokio::time::Instant::now() + self.settings.checkpoint, self.settings.checkpoint);
        loop {
            let event = tokio::select! {
                biased;
                reason = running.end_wanted() => Event::EndWanted(reason),
                () = self.hand_over.cancelled() => Event::HandOver,
                (begun, saved) = pending(&mut save), if save.is_some() => Event::Saved(begun, saved),
                _ = due.tick(), if save.is_none() => Event::SaveDue,
                piece = answering.next(), if journal.owned() => Event::Piece(piece),
            };
            match event {
                Event::Piece(Some(AnswerEvent::Delta(text))) => {
                    journal.push(&text);
                    if journal.is_full() {
                        return Ending::Finished(FinishReason::Length);
                    }
                    if save.is_none() && journal.unsaved_bytes() >= self.settings.checkpoint_bytes {
                        save = Some(self.save(session, journal));
                    }
                }
                Event::Piece(Some(AnswerEvent::Conversation(id))) => journal.set_conversation(id),
                Event::Piece(Some(AnswerEvent::Model(model))) if journal.entry().content.text().is_empty() => {
                    self.speaks(journal, &model);
                }
                Event::Piece(Some(piece @ (AnswerEvent::Model(_) | AnswerEvent::Replace(_)))) => {
                    if let Some(save) = save.take() {
                        // An older state must not arrive behind the newer one.
                        drop(save.await);
                    }
                    let before = journal.entry().clone();
                    let text = match piece {
                        AnswerEvent::Replace(text) => text,
                        AnswerEvent::Model(model) => {
                            self.speaks(journal, &model);
                            String::new()
                        }
                        _ => String::new(),
                    };
                    if let Some(ending) = self.restart(session, journal, running, before, text).await {
                        return ending;
                    }
                    if journal.is_full() {
                        return Ending::Finished(FinishReason::Length);
                    }
                }
                Event::Piece(Some(AnswerEvent::End(end))) => {
                    *usage = end.usage;
                    return match end.outcome {
                        AnswerOutcome::Finished(reason) => Ending::Finished(reason),
                        AnswerOutcome::Failed(fault) => Ending::Failed(fault),
                        // Nobody but this turn stops it.
                        AnswerOutcome::Stopped => Ending::Finished(FinishReason::Stopped),
                    };
                }
                Event::Piece(None) => return Ending::Failed(ErrorCode::ProviderUnavailable.into()),
                Event::SaveDue => save = Some(self.save(session, journal)),
                Event::Saved(begun, Ok(true)) => {
                    save = None;
                    journal.saved(begun, self.settings.lease);
                }
                Event::Saved(_, Ok(false)) => return Ending::Lost,
                // The next tick tries again; when the lease has run out, no text is taken until a save succeeds.
                Event::Saved(_, Err(_)) => save = None,
                Event::EndWanted(reason) => return Ending::Finished(reason),
                Event::HandOver => {
                    if let Some(save) = save.take() {
                        // It would renew the lease that is given up next.
                        drop(save.await);
                    }
                    return Ending::HandedOver;
                }
            }
        }
    }

    /// Begins the text anew: saved first, so that no other brain can begin an attempt of the same number, then shown. What
    /// was shown stays until that has succeeded.
    async fn restart(
        &self,
        session: &Arc<Session>,
        journal: &mut Journal,
        running: &RunningAnswer,
        before: Entry,
        text: String,
    ) -> Option<Ending> {
        journal.restart(text);
        let ending = loop {
            match self.save(session, journal).await {
                (begun, Ok(true)) => {
                    journal.saved(begun, self.settings.lease);
                    journal.show();
                    return None;
                }
                (_, Ok(false)) => return Some(Ending::Lost),
                (_, Err(failure)) if !journal.owned() => break Ending::Failed(failure.code.into()),
                (_, Err(_)) => {}
            }
            tokio::select! {
                reason = running.end_wanted() => break Ending::Finished(reason),
                () = tokio::time::sleep(PAUSE) => {}
            }
        };
        journal.undo_restart(before);
        Some(ending)
    }

    /// This model speaks from here on.
    fn speaks(&self, journal: &mut Journal, model: &Model) {
        if journal.set_model(&model.id) {
            self.metrics.answer_fell_back();
        }
    }

    /// Ends the call that may still be under way, and takes its usage from it. Where it has ended by itself, nothing changes.
    async fn end_call(
        &self,
        session: &Session,
        answering: &mut Answering,
        seq: Seq,
        ending: &Ending,
        usage: &mut Option<TokenUsage>,
    ) {
        let finish = match ending {
            Ending::Finished(reason) => CallFinish::of(*reason),
            Ending::Failed(_) => CallFinish::Failed,
            Ending::Lost => self.finish_of_lost(session, seq).await,
            Ending::HandedOver => CallFinish::HandedOver,
        };
        answering.stop(finish);
        if usage.is_some() || matches!(ending, Ending::Lost | Ending::HandedOver) {
            return;
        }
        let end = async {
            while let Some(piece) = answering.next().await {
                if let AnswerEvent::End(end) = piece {
                    *usage = end.usage;
                    return;
                }
            }
        };
        if tokio::time::timeout(STOP_PATIENCE, end).await.is_err() {
            tracing::debug!("an answer was ended while its store did not answer");
        }
    }

    /// Another brain has the answer: it may have stopped it for somebody, or have taken this one for dead.
    async fn finish_of_lost(&self, session: &Session, seq: Seq) -> CallFinish {
        let row = self.sessions.store.entry(session.id, seq).await.ok().flatten();
        let finish = row.and_then(|row| row.meta.answer().and_then(|answer| answer.finish));
        match finish {
            Some(FinishReason::Stopped) => CallFinish::Stopped,
            Some(FinishReason::Interrupted) => CallFinish::Interrupted,
            _ => CallFinish::Lost,
        }
    }

    fn save(&self, session: &Arc<Session>, journal: &mut Journal) -> Save {
        let (entry, fence, begun) = journal.begin_save(self);
        let (sessions, session) = (Arc::clone(&self.sessions), Arc::clone(session));
        Box::pin(async move { (begun, sessions.replace_answer(&session, &entry, fence).await) })
    }

    /// Lets the provider be told to stop and the call be recorded, without anybody waiting for it.
    fn settle(&self, session: &Arc<Session>, answering: Answering) {
        let (sessions, session) = (Arc::clone(&self.sessions), Arc::clone(session));
        self.sessions.lifecycle.spawn(async move {
            answering.settle().await;
            sessions.refresh_usage(&session).await;
        });
    }
}

async fn pending(save: &mut Option<Save>) -> (Instant, Result<bool, Failure>) {
    match save {
        Some(save) => save.await,
        None => std::future::pending().await,
    }
}

fn model_id(entry: &Entry) -> &str {
    entry.meta.answer().map(|answer| answer.model_id.as_str()).unwrap_or_default()
}
