//! The storage of sessions, logs and the ledger. [`Store`] is the seam: MongoDB in production, SQLite embedded.
//! Contents reach a store as ciphertext only ([`cipher`]), which no store interprets. The ledger contains no content.
//!
//! To add a store: implement the trait with single-document operations guarded by the unique keys named at
//! [`Appended`], then run `conformance` over it.

use std::sync::Arc;

use async_trait::async_trait;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{ClientMessageId, MessageId, Seq, SessionId, UserId};

use crate::ledger::{Allowance, Day, DayUsage, Reservation, UsageRecord, UsageSum};
use crate::log::entry::EntryMeta;
pub use crate::log::state::{Responses, Summary};
pub use error::{StoreError, StoreResult};
use unreadable::UnreadableRows;

pub mod cipher;
#[cfg(test)]
pub(crate) mod conformance;
mod error;
pub mod key_check;
pub mod keyring;
pub mod mongo;
pub mod observed;
mod pages;
mod record;
pub mod sqlite;
pub mod unreadable;

/// An entry as it is stored: all in clear text except the content.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryRow {
    /// The clear-text part.
    pub meta: EntryMeta,
    /// The encrypted content (nonce ‖ ciphertext); empty where there is none.
    pub content: Vec<u8>,
}

/// The session document: the data key, and a summary of the log that is rebuilt from the log where it is behind.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// The user who owns the session.
    pub user: UserId,
    /// Random text that tells this log from another one with the same id.
    pub epoch: String,
    /// The encrypted name (nonce ‖ ciphertext); empty where there is none.
    pub name: Vec<u8>,
    /// When the session was created.
    pub started_at: Timestamp,
    /// The session's data key, wrapped by a master key. Erasure destroys it: `None` means erased.
    pub data_key: Option<WrappedKey>,
    /// The fold of the log up to `summary.seq`.
    pub summary: Summary,
    /// The last seq the owner has read.
    pub read_seq: Seq,
    /// The sum of the session's ledger records, as last saved.
    pub usage: UsageSum,
    /// Number and times of the finished answers, counted when each ends.
    pub responses: Responses,
}

/// A data key encrypted by a master key of the keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The id of the master key.
    pub kid: String,
    /// The encrypted data key (nonce ‖ ciphertext).
    pub wrapped: Vec<u8>,
}

/// The outcome of an append. Every value but `Done` means that nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The entry is durable in the log (on a majority).
    Done,
    /// `(session, seq)` is taken: another writer was first.
    SeqTaken,
    /// `(session, sender, client_msg_id)` exists.
    DuplicateMessage,
    /// `(session, reply_to, generation)` exists.
    AnswerExists,
    /// The session has a streaming answer.
    StreamingExists,
}

/// Which sessions a list contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFilter {
    /// All sessions that are not erased.
    Any,
    /// Sessions that accept messages.
    Active,
    /// Sessions that have ended.
    Ended,
}

/// The start of a page of sessions: after the session with this activity time and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionCursor {
    /// The time of its last activity.
    pub last_at: Timestamp,
    /// Its id, which orders sessions of equal times.
    pub id: SessionId,
}

/// The version of an answer's row. Every write to the row names the version that the writer has seen, and succeeds only if the
/// row still has it. Each write changes the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerVersion {
    /// Its fence: who owns it.
    pub fence: u64,
    /// Its revision.
    pub rev: u32,
    /// The end of its lease. Each renewal changes it, so a delayed save cannot replace a later one.
    pub lease_until: Timestamp,
}

impl AnswerVersion {
    /// The version of this row; `None` if it is no answer.
    pub fn of(meta: &EntryMeta) -> Option<Self> {
        let answer = meta.answer()?;
        Some(Self { fence: answer.fence, rev: meta.rev, lease_until: answer.lease_until })
    }
}

/// A page of streaming answers whose lease has ended, oldest lease first.
#[derive(Debug, Clone, PartialEq)]
pub struct LeasePage {
    /// The answers of the page that can be read.
    pub rows: Vec<EntryRow>,
    /// Where the next page begins; `None` after the last page.
    pub next: Option<LeaseCursor>,
}

/// The start of a page of leases: after the answer with this lease and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseCursor {
    /// When its lease ended.
    pub lease_until: Timestamp,
    /// Its id, which orders answers of equal leases.
    pub id: MessageId,
}

/// The storage of sessions, logs and the ledger. All writes are durable when they return: on a majority, journaled. All
/// reads see every acknowledged write (read concern majority). Pages are sorted by the store and bounded by `limit`.
///
/// A row that this version cannot read never fails a page. Pages of a log, and reads of one entry, contain a placeholder for
/// the row: a failed answer with the error `internal`. Other pages leave the row out.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The rows that this store could not read.
    fn unreadable_rows(&self) -> UnreadableRows;

    /// The store's clock, which is the clock of leases and entries. Succeeds only if the store answers.
    async fn now(&self) -> StoreResult<Timestamp>;

    /// Creates missing tables and indexes. Idempotent.
    async fn migrate(&self) -> StoreResult<()>;

    /// The names of missing indexes.
    async fn missing_indexes(&self) -> StoreResult<Vec<String>>;

    /// Creates the session. `false`: the id is taken (also by an erased session) and nothing was changed.
    async fn create_session(&self, row: &SessionRow) -> StoreResult<bool>;

    /// For each master key in use, by ascending kid: one stored session and its wrapped data key. `limit` at most. Takes one
    /// index lookup per kid.
    async fn key_samples(&self, limit: u32) -> StoreResult<Vec<(SessionId, WrappedKey)>>;

    /// The session; an erased one has no data key.
    async fn session(&self, id: SessionId) -> StoreResult<Option<SessionRow>>;

    /// The user's sessions that are not erased, latest activity first, beginning after `after`.
    async fn list_sessions(
        &self,
        user: &UserId,
        filter: StateFilter,
        after: Option<SessionCursor>,
        limit: u32,
    ) -> StoreResult<Vec<SessionRow>>;

    /// Saves a newer summary. A summary with a lower `seq` than the stored one is ignored; an erased session stays
    /// erased.
    async fn save_summary(&self, session: SessionId, summary: &Summary) -> StoreResult<()>;

    /// Replaces the encrypted name. `false`: the session does not exist or is erased.
    async fn rename_session(&self, session: SessionId, name: &[u8]) -> StoreResult<bool>;

    /// Replaces the encrypted name if it still is `from`. `false`: it is another one and nothing was changed.
    async fn replace_name(&self, session: SessionId, from: &[u8], to: &[u8]) -> StoreResult<bool>;

    /// Moves the owner's read marker forward, never back.
    async fn mark_read(&self, session: SessionId, seq: Seq) -> StoreResult<()>;

    /// Counts one finished answer and its duration.
    async fn add_response(&self, session: SessionId, took_ms: u64) -> StoreResult<()>;

    /// Destroys the data key and the name at once, then deletes the log. The id stays taken, and the ledger keeps its
    /// records. Idempotent.
    async fn erase_session(&self, session: SessionId) -> StoreResult<()>;

    /// Appends one entry under its unique keys. The same row again (same id at the same seq) returns `Done` again, so
    /// an append with unknown outcome can be repeated. Where several keys are taken, any of them is returned; a caller
    /// that repeats at a higher seq meets the others.
    async fn append(&self, row: &EntryRow) -> StoreResult<Appended>;

    /// Entries with `seq > after`, ascending.
    async fn entries_after(&self, session: SessionId, after: Seq, limit: u32) -> StoreResult<Vec<EntryRow>>;

    /// The latest `limit` entries with `seq < before`, ascending. `before` may be any number.
    async fn entries_before(&self, session: SessionId, before: Seq, limit: u32) -> StoreResult<Vec<EntryRow>>;

    /// The entry at this seq.
    async fn entry(&self, session: SessionId, seq: Seq) -> StoreResult<Option<EntryRow>>;

    /// The sender's entry with this client message id.
    async fn entry_by_client_id(
        &self,
        session: SessionId,
        sender: &UserId,
        id: ClientMessageId,
    ) -> StoreResult<Option<EntryRow>>;

    /// The session's streaming answer. `None` also if this version cannot read it.
    async fn streaming_answer(&self, session: SessionId) -> StoreResult<Option<EntryRow>>;

    /// The answer to `reply_to` with the highest generation.
    async fn latest_answer(&self, session: SessionId, reply_to: Seq) -> StoreResult<Option<EntryRow>>;

    /// Replaces the mutable fields of an answer (rev, state, content, the answer's part), if it is still streaming and
    /// has this version. `false`: it is not, and nothing was changed.
    async fn update_answer(&self, row: &EntryRow, seen: AnswerVersion) -> StoreResult<bool>;

    /// The session's oldest message that needs an answer.
    async fn next_unanswered(&self, session: SessionId) -> StoreResult<Option<EntryRow>>;

    /// Marks the message as needing no answer: one has begun, or a human has taken over.
    async fn clear_need(&self, session: SessionId, id: MessageId, seq: Seq) -> StoreResult<()>;

    /// Streaming answers of all sessions whose lease ended before `before`, oldest lease first, beginning after `after`.
    async fn expired_answers(
        &self,
        before: Timestamp,
        after: Option<LeaseCursor>,
        limit: u32,
    ) -> StoreResult<LeasePage>;

    /// Messages of all sessions appended in `from..before` that need an answer, oldest first.
    async fn unanswered_between(&self, from: Timestamp, before: Timestamp, limit: u32) -> StoreResult<Vec<EntryRow>>;

    /// Reserves the most a call can use in the account of its user and day, if used and reserved amounts and this
    /// reservation fit the allowance. `false`: they do not, and nothing was changed. The same reservation again returns
    /// `true` again. Atomic: concurrent calls cannot exceed the allowance together.
    async fn reserve_usage(&self, reservation: &Reservation, allowance: &Allowance) -> StoreResult<bool>;

    /// Inserts the record unless one with its call id exists, and replaces the call's reservation by what the record in
    /// the ledger used, once. Returns the record in the ledger, which is the first one. Idempotent.
    async fn record_usage(&self, record: &UsageRecord) -> StoreResult<UsageRecord>;

    /// The user's unsettled reservations.
    async fn open_reservations(&self, user: &UserId) -> StoreResult<Vec<Reservation>>;

    /// Unsettled reservations of all users that expired before `now`, oldest first.
    async fn expired_reservations(&self, now: Timestamp, limit: u32) -> StoreResult<Vec<Reservation>>;

    /// The sum of a session's records.
    async fn session_usage(&self, session: SessionId) -> StoreResult<UsageSum>;

    /// Saves the sum of a session's records in its document. A sum of fewer calls than the stored one is ignored.
    async fn save_session_usage(&self, session: SessionId, usage: &UsageSum) -> StoreResult<()>;

    /// The user's accounts from the day `from` on, oldest first.
    async fn user_usage(&self, user: &UserId, from: Day, limit: u32) -> StoreResult<Vec<DayUsage>>;
}

/// A store shared by all parts of the brain.
pub type SharedStore = Arc<dyn Store>;
