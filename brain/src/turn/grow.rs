//! Growing an answer: takes the text from the model, shows it, saves it from time to time, and stops when the model, a
//! participant, another brain or this process ends it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chatbox_shared::failure::{ErrorCode, Failure};

use super::journal::Journal;
use super::row;
use super::turns::Turns;
use super::workers::RunningAnswer;
use crate::llm::answer::{AnswerError, AnswerEvent, AnswerOutcome, Answering};
use crate::llm::model::Model;
use crate::log::entry::{Entry, FinishReason, TokenUsage};
use crate::session::handle::Session;

/// The wait before a store that could not be reached is tried again.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// A save under way: when it began, and whether the row was still this brain's.
type Save = Pin<Box<dyn Future<Output = (Instant, Result<bool, Failure>)> + Send>>;

/// Everything that can happen while an answer grows.
enum GrowEvent {
    Model(Option<AnswerEvent>),
    Saved(Instant, Result<bool, Failure>),
    SaveDue,
    EndRequested(FinishReason),
    HandOver,
}

/// Why the answer stopped growing.
pub(super) enum GrowEnd {
    /// The answer is complete, or was cut for this reason.
    Finished(FinishReason),
    /// No model could answer.
    Failed(AnswerError),
    /// Another brain has the row.
    Lost,
    /// This process hands its answers over.
    HandedOver,
}

/// An answer that grows.
pub(super) struct Growing<'a> {
    pub(super) turns: &'a Turns,
    pub(super) session: &'a Arc<Session>,
    pub(super) running: &'a RunningAnswer,
    pub(super) journal: &'a mut Journal,
    /// What the last call used, once that is known.
    pub(super) usage: &'a mut Option<TokenUsage>,
}

impl Growing<'_> {
    /// Takes text until the answer ends. While the lease is not sure, no text is taken, so none is shown.
    pub(super) async fn grow(&mut self, answering: &mut Answering) -> GrowEnd {
        let settings = &self.turns.settings;
        let mut save: Option<Save> = None;
        let first = tokio::time::Instant::now() + settings.checkpoint;
        let mut due = tokio::time::interval_at(first, settings.checkpoint);
        loop {
            // Whoever wrote this into the log may have died before the answer was told to end. The save that is due wakes this loop.
            if let Some(reason) = self.session.ended_by_log(self.running.seq) {
                finish_save(&mut save).await;
                return GrowEnd::Finished(reason);
            }
            let event = tokio::select! {
                biased;
                reason = self.running.end_requested() => GrowEvent::EndRequested(reason),
                () = self.turns.hand_over.cancelled() => GrowEvent::HandOver,
                (begun, saved) = pending(&mut save), if save.is_some() => GrowEvent::Saved(begun, saved),
                _ = due.tick(), if save.is_none() => GrowEvent::SaveDue,
                piece = answering.next(), if self.journal.owned() => GrowEvent::Model(piece),
            };
            match event {
                GrowEvent::Model(piece) => {
                    if let Some(end) = self.take(piece, &mut save).await {
                        return end;
                    }
                }
                GrowEvent::SaveDue => save = Some(self.save()),
                GrowEvent::Saved(begun, Ok(true)) => {
                    save = None;
                    self.journal.saved(begun, settings.lease);
                }
                GrowEvent::Saved(_, Ok(false)) => return GrowEnd::Lost,
                // The next tick tries again. Once the lease has run out, no text is taken until a save succeeds.
                GrowEvent::Saved(_, Err(_)) => save = None,
                GrowEvent::EndRequested(reason) => return GrowEnd::Finished(reason),
                GrowEvent::HandOver => {
                    // This save renews the lease, so it must be done before the lease is given up.
                    finish_save(&mut save).await;
                    return GrowEnd::HandedOver;
                }
            }
        }
    }

    /// Takes one piece of the answer. `None`: the answer goes on.
    async fn take(&mut self, piece: Option<AnswerEvent>, save: &mut Option<Save>) -> Option<GrowEnd> {
        match piece {
            Some(AnswerEvent::Delta(text)) => {
                self.journal.push(&text);
                if self.journal.is_full() {
                    return Some(GrowEnd::Finished(FinishReason::Length));
                }
                if save.is_none() && self.journal.unsaved_bytes() >= self.turns.settings.checkpoint_bytes {
                    *save = Some(self.save());
                }
                None
            }
            Some(AnswerEvent::Conversation(id)) => {
                self.journal.set_conversation(id);
                None
            }
            Some(AnswerEvent::Model(model)) if self.journal.entry().content.text().is_empty() => {
                self.set_model(&model);
                None
            }
            Some(AnswerEvent::Model(model)) => {
                finish_save(save).await;
                let before = self.journal.entry().clone();
                self.set_model(&model);
                self.restart(before, String::new()).await
            }
            Some(AnswerEvent::Replace(text)) => {
                finish_save(save).await;
                let before = self.journal.entry().clone();
                self.restart(before, text).await
            }
            Some(AnswerEvent::End(end)) => {
                *self.usage = end.usage;
                Some(match end.outcome {
                    AnswerOutcome::Finished(reason) => GrowEnd::Finished(reason),
                    AnswerOutcome::Failed(fault) => GrowEnd::Failed(fault),
                    // Only this turn stops the answering, and it has not.
                    AnswerOutcome::Stopped => GrowEnd::Finished(FinishReason::Stopped),
                })
            }
            None => Some(GrowEnd::Failed(ErrorCode::ProviderUnavailable.into())),
        }
    }

    /// Begins a new attempt with this text. The new attempt is saved before it is shown, so that no other brain can begin an
    /// attempt with the same number; until then the old text stays shown. `None`: the answer goes on.
    async fn restart(&mut self, before: Entry, text: String) -> Option<GrowEnd> {
        self.journal.restart(text);
        let end = loop {
            match self.save().await {
                (begun, Ok(true)) => {
                    self.journal.saved(begun, self.turns.settings.lease);
                    self.journal.show();
                    return self.journal.is_full().then_some(GrowEnd::Finished(FinishReason::Length));
                }
                (_, Ok(false)) => return Some(GrowEnd::Lost),
                (_, Err(failure)) if !self.journal.owned() => break GrowEnd::Failed(failure.code.into()),
                (_, Err(_)) => {}
            }
            tokio::select! {
                reason = self.running.end_requested() => break GrowEnd::Finished(reason),
                () = tokio::time::sleep(PAUSE) => {}
            }
        };
        self.journal.undo_restart(before);
        Some(end)
    }

    /// From here on this model answers.
    fn set_model(&mut self, model: &Model) {
        if self.journal.set_model(&model.id) {
            self.turns.metrics.answer_fell_back();
        }
    }

    fn save(&mut self) -> Save {
        let (entry, fence, begun) = self.journal.begin_save(self.turns);
        let (store, session) = (Arc::clone(&self.turns.sessions.store), Arc::clone(self.session));
        Box::pin(async move { (begun, row::replace(store.as_ref(), &session, &entry, fence).await) })
    }
}

/// Waits for a save under way, so that an older state cannot arrive after a newer one. Its result does not matter.
async fn finish_save(save: &mut Option<Save>) {
    if let Some(save) = save.take() {
        drop(save.await);
    }
}

async fn pending(save: &mut Option<Save>) -> (Instant, Result<bool, Failure>) {
    match save {
        Some(save) => save.await,
        None => std::future::pending().await,
    }
}
