//! Writing an answer: each write is a compare-and-set on the row's fence, so a brain that lost the row cannot write, and
//! each write renews the lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::{ErrorCode, Failure};

use super::Turns;
use crate::llm::answer::AnswerError;
use crate::llm::tokens;
use crate::session::Session;
use crate::session::entry::{Body, Content, Entry, EntryState, FinishReason, TokenUsage};
use crate::session::registry::Sessions;
use crate::store::StoreError;

/// Bytes of an answer at most; a longer one ends there with the finish reason `length`. Well under what a socket's queue
/// and a frame of the link may hold.
const MAX_ANSWER_BYTES: usize = 160 << 10;

/// The row belongs to somebody else now, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

/// An answer being written by this brain.
pub(super) struct Journal {
    session: Arc<Session>,
    /// The row as it will be written next.
    entry: Entry,
    fence: u64,
    unsaved_bytes: usize,
    /// Until when the row is surely ours, by this machine's monotonic clock.
    owned_until: Instant,
    begun: Instant,
    first_token: Option<Duration>,
}

impl Journal {
    /// Takes over a row that was just written by this brain.
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

    /// Bytes that only this process knows.
    pub(super) fn unsaved_bytes(&self) -> usize {
        self.unsaved_bytes
    }

    /// May text still be shown? Not after the lease has run out: somebody else may be answering.
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

    /// The provider took its text back: a new attempt that starts with the given text. It is to be saved before it is
    /// shown, so that no other brain can begin an attempt of the same number.
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

    /// Takes back what [`Journal::restart`] did and could not be saved.
    pub(super) fn undo_restart(&mut self, before: Entry) {
        // Kept: the save may have arrived after all, and what is shown next must be newer than it.
        let rev = self.entry.meta.rev;
        self.entry = before;
        self.entry.meta.rev = rev;
    }

    /// Shows the row as it stands.
    pub(super) fn show(&self) {
        self.session.apply(&self.entry);
    }

    /// Has the answer grown as long as one may be?
    pub(super) fn is_full(&self) -> bool {
        self.entry.content.text().len() > MAX_ANSWER_BYTES - char::MAX_LEN_UTF8
    }

    /// This model answers from here on; says whether it is another one than before.
    pub(super) fn set_model(&mut self, model_id: &str) -> bool {
        let Some(answer) = self.entry.meta.answer_mut().filter(|answer| answer.model_id != model_id) else {
            return false;
        };
        let before = std::mem::replace(&mut answer.model_id, model_id.to_owned());
        answer.asked_model.get_or_insert(before);
        // It was the other one's.
        answer.conversation = None;
        true
    }

    /// The provider's id of the conversation.
    pub(super) fn set_conversation(&mut self, conversation: String) {
        if let Some(answer) = self.entry.meta.answer_mut() {
            answer.conversation = Some(conversation);
        }
    }

    /// Starts a save of what there is; the text may grow on meanwhile.
    pub(super) fn begin_save(&mut self, turns: &Turns) -> (Entry, u64, Instant) {
        let lease_until = turns.sessions.now().plus(turns.settings.lease);
        if let Some(answer) = self.entry.meta.answer_mut() {
            answer.lease_until = lease_until;
        }
        self.unsaved_bytes = 0;
        (self.entry.clone(), self.fence, Instant::now())
    }

    /// A save that began at `begun` has succeeded.
    pub(super) fn saved(&mut self, begun: Instant, lease: Duration) {
        self.owned_until = begun + lease;
    }

    /// Writes the end of the answer, however long the store takes, and shows it. `Lost`: somebody else has the row.
    pub(super) async fn finish(mut self, turns: &Turns, end: End) -> Result<(), Lost> {
        let total = self.begun.elapsed();
        if let Some(answer) = self.entry.meta.answer_mut() {
            answer.usage = end.usage;
            answer.retry_at = end.fault.and_then(|fault| fault.retry_at);
        }
        finish_as(&mut self.entry, end.state, end.finish, end.fault.map(|fault| fault.code));
        if let Some(answer) = self.entry.meta.answer_mut() {
            // Kept: nobody else has touched the row, so no new owner is marked.
            answer.fence = self.fence;
            answer.first_token_ms = self.first_token.map(millis);
            answer.total_ms = Some(millis(total));
        }
        let mut wait = Duration::from_millis(50);
        loop {
            match turns.sessions.replace_answer(&self.session, &self.entry, self.fence).await {
                Ok(true) => break,
                Ok(false) => return Err(Lost),
                Err(failure) if failure.code == ErrorCode::StorageUnavailable => {
                    if turns.sessions.lifecycle.stopping().is_cancelled() {
                        return Err(Lost);
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(1));
                }
                Err(_) => return Err(Lost),
            }
        }
        self.session.apply(&self.entry);
        turns.sessions.count_answer(&self.session, millis(total)).await;
        Ok(())
    }

    /// Saves what there is and lets the lease end now, so that another brain goes on at once.
    pub(super) async fn release(mut self, turns: &Turns) {
        let now = turns.sessions.now();
        if let Some(answer) = self.entry.meta.answer_mut() {
            answer.lease_until = now;
        }
        if let Err(failure) = turns.sessions.replace_answer(&self.session, &self.entry, self.fence).await {
            tracing::warn!(session = %self.session.id, %failure, "a lease was not handed over; it runs out by itself");
        }
    }
}

/// As much of a text as fits, whole characters.
fn beginning(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

/// How an answer ends.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// Final or failed.
    pub(super) state: EntryState,
    /// Why, for a final one.
    pub(super) finish: Option<FinishReason>,
    /// The fault of a failed one.
    pub(super) fault: Option<AnswerError>,
    /// What it used; `None` where nothing was called, or it is not known.
    pub(super) usage: Option<TokenUsage>,
}

/// Marks the entry as ended under a new fence; gives the fence it had.
pub(super) fn finish_as(
    entry: &mut Entry,
    state: EntryState,
    finish: Option<FinishReason>,
    error: Option<ErrorCode>,
) -> u64 {
    entry.meta.state = state;
    entry.meta.rev += 1;
    if entry.content == Content::Unreadable {
        // Logged when it was read. Without this the row could never be written, and would stream for ever.
        entry.content = Content::Text(String::new());
    }
    let output = tokens::estimate(entry.content.text());
    let Body::Answer(answer) = &mut entry.meta.body else { return 0 };
    answer.finish = finish;
    answer.error = error;
    answer.usage.get_or_insert(TokenUsage { input: 0, cached: 0, output, estimated: true });
    let fence = answer.fence;
    answer.fence += 1;
    fence
}

impl Sessions {
    /// Replaces an answer's row, if it is still streaming under `fence`. A write whose outcome was unknown and that did
    /// succeed counts as a success.
    ///
    /// # Errors
    /// Where the store cannot be reached.
    pub(super) async fn replace_answer(&self, session: &Session, entry: &Entry, fence: u64) -> Result<bool, Failure> {
        let row = session.seal(entry).map_err(|error| self.internal(session, &error))?;
        let storage = |error: StoreError| self.storage(session, &error);
        if self.store.update_answer(&row, fence).await.map_err(storage)? {
            return Ok(true);
        }
        let there = self.store.entry(session.id, entry.meta.seq).await.map_err(storage)?;
        Ok(there.is_some_and(|there| there.meta == entry.meta))
    }
}

/// Whole milliseconds, saturating.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
