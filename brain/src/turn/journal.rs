//! The journal of an answer that this brain generates: the row as it will be written next, and the lease on it. Each write
//! renews the lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::ErrorCode;

use super::row;
use super::turns::Turns;
use crate::llm::answer::AnswerError;
use crate::log::entry::{Body, Content, Entry, EntryState, FinishReason, TokenUsage};
use crate::session::handle::Session;
use crate::session::usage;

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
    fence: u64,
    unsaved_bytes: usize,
    /// Until when no other brain can own the row, by this machine's monotonic clock.
    owned_until: Instant,
    begun: Instant,
    first_token: Option<Duration>,
}

impl Journal {
    /// The journal of a row that this brain has just written. `None`: the row is no answer.
    pub(super) fn new(session: Arc<Session>, entry: Entry, store_now: Timestamp) -> Option<Self> {
        let answer = entry.meta.answer()?;
        let (fence, left) = (answer.fence, answer.lease_until.since(store_now));
        let begun = Instant::now();
        Some(Self { session, entry, fence, unsaved_bytes: 0, owned_until: begun + left, begun, first_token: None })
    }

    /// The row as it stands.
    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Bytes of text that are not saved yet.
    pub(super) fn unsaved_bytes(&self) -> usize {
        self.unsaved_bytes
    }

    /// Whether text may be shown. After the lease has run out another brain may be answering.
    pub(super) fn owned(&self) -> bool {
        Instant::now() < self.owned_until
    }

    /// Appends text and shows it.
    pub(super) fn push(&mut self, text: &str) {
        let text = beginning(text, MAX_ANSWER_BYTES.saturating_sub(self.entry.content.text().len()));
        self.first_token.get_or_insert_with(|| self.begun.elapsed());
        let Body::Answer(answer) = &mut self.entry.meta.body else { return };
        let (seq, attempt) = (self.entry.meta.seq, answer.attempt);
        answer.next_index += 1;
        if let Content::Text(content) = &mut self.entry.content {
            content.push_str(text);
        }
        self.unsaved_bytes += text.len();
        self.session.delta(seq, self.fence, attempt, text);
    }

    /// Begins a new attempt with this text, because the provider has withdrawn the text before. It must be saved before it is
    /// shown, so that no other brain can begin an attempt with the same number.
    pub(super) fn restart(&mut self, text: String) {
        let text = beginning(&text, MAX_ANSWER_BYTES);
        self.unsaved_bytes += text.len();
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

    /// Begins a save: what to write, under which fence, and when it began. More text may be pushed meanwhile.
    pub(super) fn begin_save(&mut self, turns: &Turns) -> (Entry, u64, Instant) {
        let lease_until = turns.sessions.now().plus(turns.settings.lease);
        if let Some(answer) = self.entry.meta.answer_mut() {
            answer.lease_until = lease_until;
        }
        self.unsaved_bytes = 0;
        (self.entry.clone(), self.fence, Instant::now())
    }

    /// A save that began at `begun` has succeeded, and so renewed the lease.
    pub(super) fn saved(&mut self, begun: Instant, lease: Duration) {
        self.owned_until = begun + lease;
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
            answer.fence = self.fence;
            answer.first_token_ms = self.first_token.map(millis);
            answer.total_ms = Some(millis(total));
        }
        let mut wait = Duration::from_millis(50);
        loop {
            match row::replace(turns.store(), &self.session, &self.entry, self.fence).await {
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
        let now = turns.sessions.now();
        if let Some(answer) = self.entry.meta.answer_mut() {
            answer.lease_until = now;
        }
        if let Err(failure) = row::replace(turns.store(), &self.session, &self.entry, self.fence).await {
            tracing::warn!(session = %self.session.id, %failure, "a lease was not handed over; it will expire");
        }
    }
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
