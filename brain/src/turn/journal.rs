//! The journal of an answer that this brain generates: the row as it will be written next, and the lease on it. Each write
//! renews the lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::ErrorCode;

use super::row;
use super::turns::{TurnSettings, Turns};
use crate::llm::answer::AnswerError;
use crate::log::entry::{Body, Content, Entry, EntryState, FinishReason, TokenUsage};
use crate::session::handle::Session;
use crate::session::usage;
use crate::store::AnswerVersion;

/// Bytes of an answer at most. A longer answer ends there with the finish reason `length`. Well under the bounds of a client's
/// queue and of a frame of the link.
const MAX_ANSWER_BYTES: usize = 160 << 10;

/// Another brain has the row, or the row is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowLost;

/// An answer that this brain writes.
pub(super) struct Journal {
    session: Arc<Session>,
    /// The row as it will be written next.
    entry: Entry,
    /// The version of the stored row, as far as this brain knows.
    stored: AnswerVersion,
    /// Bytes of text that no finished save contains.
    unsaved_bytes: usize,
    /// Those of them that the save under way contains.
    saving_bytes: usize,
    /// When the oldest of the unsaved text was shown.
    unsaved_since: Option<Instant>,
    /// Until when no other brain can own the row, by this machine's monotonic clock.
    owned_until: Instant,
    begun: Instant,
    first_token: Option<Duration>,
}

impl Journal {
    /// The journal of a row that this brain has just written. `None`: the row is no answer.
    pub(super) fn new(session: Arc<Session>, entry: Entry, store_now: Timestamp) -> Option<Self> {
        let answer = entry.meta.answer()?;
        let (stored, left) = (AnswerVersion::of(&entry.meta)?, answer.lease_until.since(store_now));
        let begun = Instant::now();
        Some(Self {
            session,
            entry,
            stored,
            unsaved_bytes: 0,
            saving_bytes: 0,
            unsaved_since: None,
            owned_until: begun + left,
            begun,
            first_token: None,
        })
    }

    /// The row as it stands.
    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Whether the text that no save contains yet is long enough for a save. It is half of what may be shown unsaved, so that
    /// a save is done before text has to wait for it.
    pub(super) fn wants_save(&self, settings: &TurnSettings) -> bool {
        (self.unsaved_bytes - self.saving_bytes) * 2 >= settings.checkpoint_bytes
    }

    /// Whether more text may be shown. What is shown and not saved is bounded in bytes and time: a brain that takes the answer
    /// over, or ends it, takes that much back from those who have read it.
    pub(super) fn may_show(&self, settings: &TurnSettings) -> bool {
        self.owned()
            && self.unsaved_bytes < settings.checkpoint_bytes
            && self.unsaved_since.is_none_or(|since| since.elapsed() <= settings.checkpoint)
    }

    /// Whether the lease lasts. After it has run out another brain may be answering.
    pub(super) fn owned(&self) -> bool {
        Instant::now() < self.owned_until
    }

    /// Shows text and appends it. Text that the session does not show any more is dropped: the stored text is what was shown.
    pub(super) fn push(&mut self, text: &str) {
        let text = beginning(text, MAX_ANSWER_BYTES.saturating_sub(self.entry.content.text().len()));
        self.first_token.get_or_insert_with(|| self.begun.elapsed());
        let Body::Answer(answer) = &mut self.entry.meta.body else { return };
        if !self.session.delta(self.entry.meta.seq, self.stored.fence, answer.attempt, text) {
            return;
        }
        answer.next_index += 1;
        if let Content::Text(content) = &mut self.entry.content {
            content.push_str(text);
        }
        self.unsaved_bytes += text.len();
        self.unsaved_since.get_or_insert_with(Instant::now);
    }

    /// Begins a new attempt with this text, because the provider has withdrawn the text before. It must be saved before it is
    /// shown, so that no other brain can begin an attempt with the same number.
    pub(super) fn restart(&mut self, text: String) {
        let text = beginning(&text, MAX_ANSWER_BYTES);
        self.entry.content = Content::Text(text.to_owned());
        self.entry.meta.rev += 1;
        if let Some(answer) = self.entry.meta.answer_mut() {
            answer.attempt += 1;
            answer.next_index = 0;
        }
    }

    /// Undoes a [`Journal::restart`] that could not be saved.
    pub(super) fn undo_restart(&mut self, before: Entry) {
        // The revision is kept: the save may have arrived after all, and the next write must be newer.
        let rev = self.entry.meta.rev;
        self.entry = before;
        self.entry.meta.rev = rev;
    }

    /// Publishes the row as it stands.
    pub(super) fn show(&self) {
        self.session.apply(&self.entry);
    }

    /// Whether the answer has reached the largest length.
    pub(super) fn is_full(&self) -> bool {
        self.entry.content.text().len() > MAX_ANSWER_BYTES - char::MAX_LEN_UTF8
    }

    /// From here on this model answers. `true`: it is a different model than before.
    pub(super) fn set_model(&mut self, model_id: &str) -> bool {
        let Some(answer) = self.entry.meta.answer_mut().filter(|answer| answer.model_id != model_id) else {
            return false;
        };
        let before = std::mem::replace(&mut answer.model_id, model_id.to_owned());
        answer.asked_model.get_or_insert(before);
        // The conversation belongs to the other model.
        answer.conversation = None;
        true
    }

    /// Sets the provider's id of the conversation.
    pub(super) fn set_conversation(&mut self, conversation: String) {
        if let Some(answer) = self.entry.meta.answer_mut() {
            answer.conversation = Some(conversation);
        }
    }

    /// Begins a save. More text may be pushed meanwhile.
    pub(super) fn begin_save(&mut self, turns: &Turns) -> Save {
        let mut written = self.stored;
        if let Some(answer) = self.entry.meta.answer_mut() {
            // Each save has another lease, so that each has a version of its own.
            let after_last = answer.lease_until.plus(Duration::from_millis(1));
            answer.lease_until = turns.sessions.now().plus(turns.settings.lease).max(after_last);
            written.lease_until = answer.lease_until;
        }
        written.rev = self.entry.meta.rev;
        self.saving_bytes = self.unsaved_bytes;
        Save { entry: self.entry.clone(), seen: self.stored, written, begun: Instant::now() }
    }

    /// A save has succeeded, and so renewed the lease.
    pub(super) fn saved(&mut self, written: AnswerVersion, begun: Instant, lease: Duration) {
        self.owned_until = begun + lease;
        self.stored = written;
        self.unsaved_bytes -= self.saving_bytes;
        self.saving_bytes = 0;
        self.unsaved_since = (self.unsaved_bytes > 0).then_some(begun);
    }

    /// A save has failed. Whether the store has it is unknown.
    pub(super) fn not_saved(&mut self) {
        self.saving_bytes = 0;
    }

    /// Writes the end of the answer and publishes it. Tries until the store answers, or until the process stops.
    pub(super) async fn finish(mut self, turns: &Turns, end: FinalState) -> Result<(), RowLost> {
        let total = self.begun.elapsed();
        if let Some(answer) = self.entry.meta.answer_mut() {
            answer.usage = end.usage;
            answer.retry_at = end.error.and_then(|error| error.retry_at);
        }
        row::finish(&mut self.entry, end.state, end.finish, end.error.map(|error| error.code));
        if let Some(answer) = self.entry.meta.answer_mut() {
            // The fence is kept: it marks a change of owner, and the owner ends its own row here.
            answer.fence = self.stored.fence;
            answer.first_token_ms = self.first_token.map(millis);
            answer.total_ms = Some(millis(total));
        }
        let mut wait = Duration::from_millis(50);
        loop {
            match row::replace_own(turns.store(), &self.session, &self.entry, self.stored).await {
                Ok(true) => break,
                Ok(false) => return Err(RowLost),
                Err(failure) if failure.code == ErrorCode::StorageUnavailable => {
                    if turns.sessions.lifecycle.stopping().is_cancelled() {
                        return Err(RowLost);
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(1));
                }
                Err(_) => return Err(RowLost),
            }
        }
        self.session.apply(&self.entry);
        usage::count_answer(turns.store(), &self.session, millis(total)).await;
        Ok(())
    }

    /// Saves the text and ends the lease now, so that another brain takes the answer over at once.
    pub(super) async fn release(mut self, turns: &Turns) {
        if let Some(answer) = self.entry.meta.answer_mut() {
            answer.lease_until = row::HANDED_OVER;
        }
        if let Err(failure) = row::replace_own(turns.store(), &self.session, &self.entry, self.stored).await {
            tracing::warn!(session = %self.session.id, %failure, "a lease was not handed over; it will expire");
        }
    }
}

/// A save: what it writes over which version of the row.
pub(super) struct Save {
    pub(super) entry: Entry,
    /// The version it replaces.
    pub(super) seen: AnswerVersion,
    /// The version it writes.
    pub(super) written: AnswerVersion,
    /// When it began.
    pub(super) begun: Instant,
}

/// The beginning of a text, at most this many bytes, cut between characters.
fn beginning(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

/// The end of an answer.
#[derive(Debug, Clone)]
pub(super) struct FinalState {
    /// Final or failed.
    pub(super) state: EntryState,
    /// Why it ended, if it is final.
    pub(super) finish: Option<FinishReason>,
    /// The error, if it failed.
    pub(super) error: Option<AnswerError>,
    /// What it used. `None`: no call was made, or its usage is not known.
    pub(super) usage: Option<TokenUsage>,
}

/// Whole milliseconds, saturating.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
