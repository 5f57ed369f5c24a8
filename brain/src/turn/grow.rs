//! Growing an answer: takes the text from the model, shows it, saves it from time to time, and stops when the model, a
//! participant, another brain or this process ends it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chatbox_shared::failure::{ErrorCode, Failure};
use tokio::time::MissedTickBehavior;

use super::journal::{Journal, Save};
use super::row;
use super::turns::Turns;
use super::workers::RunningAnswer;
use crate::llm::answer::{AnswerError, AnswerEvent, AnswerOutcome, Answering};
use crate::llm::model::Model;
use crate::log::entry::{Entry, FinishReason, TokenUsage};
use crate::session::handle::Session;
use crate::store::AnswerVersion;

/// The wait before a store that could not be reached is tried again.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// A save under way.
type PendingSave = Pin<Box<dyn Future<Output = SaveResult> + Send>>;

/// A save that has ended.
struct SaveResult {
    /// The version it wrote.
    written: AnswerVersion,
    /// When it began.
    begun: Instant,
    /// Whether the row was still this brain's.
    outcome: Result<bool, Failure>,
}

/// Everything that can happen while an answer grows.
enum GrowEvent {
    Model(Option<AnswerEvent>),
    Saved(SaveResult),
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
    /// Takes text until the answer ends. While the lease is not sure, or too much text waits for a save, no text is taken, so
    /// none is shown.
    pub(super) async fn grow(&mut self, answering: &mut Answering) -> GrowEnd {
        let settings = &self.turns.settings;
        let mut save: Option<PendingSave> = None;
        // A save also renews the lease. Two may fail before the lease has run out.
        let every = settings.checkpoint.min(settings.lease / 3);
        let mut due = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                saved = pending(&mut save), if save.is_some() => GrowEvent::Saved(saved),
                _ = due.tick(), if save.is_none() => GrowEvent::SaveDue,
                piece = answering.next(), if self.journal.may_show(settings) => GrowEvent::Model(piece),
            };
            match event {
                GrowEvent::Model(piece) => {
                    if let Some(end) = self.take(piece, &mut save).await {
                        return end;
                    }
                }
                GrowEvent::SaveDue => save = Some(self.save()),
                GrowEvent::Saved(result) => {
                    save = None;
                    if self.saved(&result) == Some(false) {
                        return GrowEnd::Lost;
                    }
                }
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
    async fn take(&mut self, piece: Option<AnswerEvent>, save: &mut Option<PendingSave>) -> Option<GrowEnd> {
        match piece {
            Some(AnswerEvent::Delta(text)) => {
                self.journal.push(&text);
                if self.journal.is_full() {
                    return Some(GrowEnd::Finished(FinishReason::Length));
                }
                if save.is_none() && self.journal.wants_save(&self.turns.settings) {
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
            let result = self.save().await;
            match (self.saved(&result), result.outcome) {
                (Some(true), _) => {
                    self.journal.show();
                    return self.journal.is_full().then_some(GrowEnd::Finished(FinishReason::Length));
                }
                (Some(false), _) => return Some(GrowEnd::Lost),
                (None, Err(failure)) if !self.journal.owned() => break GrowEnd::Failed(failure.code.into()),
                (None, _) => {}
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

    /// Begins a save. It is given up after a third of the lease, so that the next one can still renew the lease.
    fn save(&mut self) -> PendingSave {
        let Save { entry, seen, written, begun } = self.journal.begin_save(self.turns);
        let (store, session) = (Arc::clone(&self.turns.sessions.store), Arc::clone(self.session));
        let limit = self.turns.settings.lease / 3;
        Box::pin(async move {
            let saving = row::replace_own(store.as_ref(), &session, &entry, seen);
            let outcome = tokio::time::timeout(limit, saving).await;
            let outcome = outcome.unwrap_or_else(|_| Err(ErrorCode::StorageUnavailable.into()));
            SaveResult { written, begun, outcome }
        })
    }

    /// Takes the result of a save. `Some(false)`: another brain has the row. `None`: it is unknown whether the store has the
    /// save. The next save tries again; once the lease has run out, no text is taken until a save succeeds.
    fn saved(&mut self, result: &SaveResult) -> Option<bool> {
        match &result.outcome {
            Ok(true) => self.journal.saved(result.written, result.begun, self.turns.settings.lease),
            Ok(false) | Err(_) => self.journal.not_saved(),
        }
        result.outcome.as_ref().ok().copied()
    }
}

/// Waits for a save under way, so that an older state cannot arrive after a newer one. Its result does not matter.
async fn finish_save(save: &mut Option<PendingSave>) {
    if let Some(save) = save.take() {
        drop(save.await);
    }
}

async fn pending(save: &mut Option<PendingSave>) -> SaveResult {
    match save {
        Some(save) => save.await,
        None => std::future::pending().await,
    }
}
