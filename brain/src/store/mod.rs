//! Where sessions and their logs are kept. [`Store`] is the seam: MongoDB in production, SQLite embedded. Contents reach
//! a store as ciphertext only ([`cipher`]); a store interprets none of it. The ledger of what was used holds no content.
//!
//! To add a store: implement the trait with single-document operations guarded by the unique keys named at
//! [`Appended`], then run [`conformance`] over it.

use std::sync::Arc;

use async_trait::async_trait;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{ClientMessageId, MessageId, Seq, SessionId, UserId};

use crate::ledger::{Allowance, Day, DayUsage, Reservation, UsageRecord, UsageSum};
use crate::session::entry::{EntryMeta, Person};

pub mod cipher;
#[cfg(test)]
mod conformance;
pub mod key_check;
pub mod keyring;
pub mod mongo;
pub mod observed;
pub mod readiness;
mod record;
pub mod sqlite;

/// An entry as it is stored: everything in the clear but the content.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryRow {
    /// The clear part.
    pub meta: EntryMeta,
    /// nonce ‖ ciphertext of the content; empty where there is no content.
    pub content: Vec<u8>,
}

/// The session document: the data key, and a summary of the log that is repaired from the log.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// Its owner.
    pub user: UserId,
    /// Tells this log from another that had the same id. Random text.
    pub epoch: String,
    /// nonce ‖ ciphertext of the name; empty while it has none.
    pub name: Vec<u8>,
    /// When it was created.
    pub started_at: Timestamp,
    /// The session's data key, wrapped by a master key. Destroyed when the session is erased, so `None` means: erased.
    pub data_key: Option<WrappedKey>,
    /// The fold of the log up to `summary.seq`.
    pub summary: Summary,
    /// Up to where the owner has read.
    pub read_seq: Seq,
    /// The sum of its records in the ledger, as it was last stored.
    pub usage: UsageSum,
    /// How many answers ended and how long they took, counted when each one ends.
    pub responses: Responses,
}

/// What the fold of the log up to `seq` says; see `session::state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The last entry folded in.
    pub seq: Seq,
    /// When that entry was appended.
    pub last_at: Timestamp,
    /// Set once the session has ended.
    pub ended_at: Option<Timestamp>,
    /// How many entries are messages.
    pub message_count: u64,
    /// The model that answers.
    pub model_id: String,
    /// A human has assisted at some time.
    pub admin_assisted: bool,
    /// The human who assists now.
    pub admin: Option<Person>,
    /// The seq of the latest `admin_joined`, 0 if there was none: no older message gets an AI answer any more.
    pub joined_seq: Seq,
    /// When the user asked for a human, while nobody has come.
    pub help_requested_at: Option<Timestamp>,
}

/// The finished answers of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Responses {
    /// How many ended.
    pub count: u64,
    /// Sum of their total times, in milliseconds.
    pub ms_sum: u64,
    /// The longest of them, in milliseconds.
    pub ms_max: u64,
}

/// A data key encrypted by a master key of the keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which master key.
    pub kid: String,
    /// nonce ‖ ciphertext.
    pub wrapped: Vec<u8>,
}

/// What became of an append. Everything but `Done` means: nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is in the log, durably (majority).
    Done,
    /// `(session, seq)` is taken: somebody else wrote first.
    SeqTaken,
    /// `(session, sender, client_msg_id)` is there already.
    DuplicateMessage,
    /// `(session, reply_to, generation)` is there already.
    AnswerExists,
    /// The session has a streaming answer already.
    StreamingExists,
}

/// Which sessions a list is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFilter {
    /// All that are not erased.
    Any,
    /// Those that take messages.
    Active,
    /// Those that have ended.
    Ended,
}

/// Where a page of sessions begins: after the one with this activity time and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionCursor {
    /// Its last activity.
    pub last_at: Timestamp,
    /// Its id, which decides between equal times.
    pub id: SessionId,
}

/// Why a store could not do it. Whether a write took place is unknown after `Unavailable`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, has no majority, or did not answer in time. Try again, with the same ids.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// It answered with something this version cannot read.
    #[error("a stored document cannot be read: {0}")]
    Corrupt(String),
    /// It refused for a reason that trying again does not mend.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// What every operation gives.
pub type StoreResult<T> = Result<T, StoreError>;

/// Sessions and their logs. All writes are durable when they return: on a majority, journaled. All reads see every
/// acknowledged write (read concern majority). Pages are sorted by the store and bounded by `limit`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Asks the store for its time: proves it is there, and is the clock for leases and entries.
    async fn now(&self) -> StoreResult<Timestamp>;

    /// Creates tables and indexes that are missing. Harmless to repeat.
    async fn migrate(&self) -> StoreResult<()>;

    /// The indexes that should be there and are not, by name.
    async fn missing_indexes(&self) -> StoreResult<Vec<String>>;

    /// Creates the session. `false`: the id is taken (also by an erased session), nothing was changed.
    async fn create_session(&self, row: &SessionRow) -> StoreResult<bool>;

    /// The ids of the master keys that wrap the data keys of stored sessions, each once, ascending, `limit` at most. Takes
    /// one index lookup per id.
    async fn key_ids(&self, limit: u32) -> StoreResult<Vec<String>>;

    /// The session, also if it is erased (then without data key).
    async fn session(&self, id: SessionId) -> StoreResult<Option<SessionRow>>;

    /// The user's sessions that are not erased, latest activity first, after `after`.
    async fn list_sessions(
        &self,
        user: &UserId,
        filter: StateFilter,
        after: Option<SessionCursor>,
        limit: u32,
    ) -> StoreResult<Vec<SessionRow>>;

    /// Stores a newer summary. One with a lower `seq` than the stored one is dropped; an erased session stays erased.
    async fn save_summary(&self, session: SessionId, summary: &Summary) -> StoreResult<()>;

    /// Replaces the encrypted name. `false`: no such session, or erased.
    async fn rename_session(&self, session: SessionId, name: &[u8]) -> StoreResult<bool>;

    /// Replaces the encrypted name if it is still `from`. `false`: it is not; nothing was changed.
    async fn replace_name(&self, session: SessionId, from: &[u8], to: &[u8]) -> StoreResult<bool>;

    /// Moves the owner's read marker forward, never back.
    async fn mark_read(&self, session: SessionId, seq: Seq) -> StoreResult<()>;

    /// Counts one finished answer and how long it took.
    async fn add_response(&self, session: SessionId, took_ms: u64) -> StoreResult<()>;

    /// Destroys the data key and the name at once, then deletes the log. The id stays taken, and the ledger keeps its
    /// records. Harmless to repeat.
    async fn erase_session(&self, session: SessionId) -> StoreResult<()>;

    /// Appends one entry under its unique keys. The same row again (same id at the same seq) is `Done` again, so an append
    /// of unknown outcome may be repeated as it is. Where several keys are taken, any of them is named; a caller that
    /// goes on to a higher seq comes to the others.
    async fn append(&self, row: &EntryRow) -> StoreResult<Appended>;

    /// Entries with `seq > after`, ascending.
    async fn entries_after(&self, session: SessionId, after: Seq, limit: u32) -> StoreResult<Vec<EntryRow>>;

    /// The latest `limit` entries with `seq < before`, ascending. `before` may be any number.
    async fn entries_before(&self, session: SessionId, before: Seq, limit: u32) -> StoreResult<Vec<EntryRow>>;

    /// The entry at this place.
    async fn entry(&self, session: SessionId, seq: Seq) -> StoreResult<Option<EntryRow>>;

    /// The sender's entry with this client id.
    async fn entry_by_client_id(
        &self,
        session: SessionId,
        sender: &UserId,
        id: ClientMessageId,
    ) -> StoreResult<Option<EntryRow>>;

    /// The session's streaming answer.
    async fn streaming_answer(&self, session: SessionId) -> StoreResult<Option<EntryRow>>;

    /// The answer to `reply_to` with the highest generation.
    async fn latest_answer(&self, session: SessionId, reply_to: Seq) -> StoreResult<Option<EntryRow>>;

    /// Replaces everything of an answer that can change (rev, state, content, the answer's part), if it is still
    /// streaming under `fence`. `false`: it is not; nothing was changed.
    async fn update_answer(&self, row: &EntryRow, fence: u64) -> StoreResult<bool>;

    /// The session's oldest message that still needs an answer.
    async fn next_unanswered(&self, session: SessionId) -> StoreResult<Option<EntryRow>>;

    /// The message needs no answer any more: one has begun, or a human has taken over.
    async fn clear_need(&self, session: SessionId, id: MessageId, seq: Seq) -> StoreResult<()>;

    /// Streaming answers whose lease ended before `now`, oldest lease first, over all sessions.
    async fn expired_answers(&self, now: Timestamp, limit: u32) -> StoreResult<Vec<EntryRow>>;

    /// Messages appended from `from` on and before `before` that still need an answer, oldest first, over all sessions.
    async fn unanswered_between(&self, from: Timestamp, before: Timestamp, limit: u32) -> StoreResult<Vec<EntryRow>>;

    /// Sets a call's largest use aside in the account of its user and day, if what is used, what is reserved and this fit
    /// the allowance. `false`: it does not fit, nothing was changed. The same reservation again is `true` again. Atomic: of
    /// calls at the same time none can make the account exceed the allowance.
    async fn reserve_usage(&self, reservation: &Reservation, allowance: &Allowance) -> StoreResult<bool>;

    /// Inserts the record unless one with its call id is there, and turns the call's reservation into what the record in
    /// the ledger says, once. Gives the record that is in the ledger: the first one. Harmless to repeat.
    async fn record_usage(&self, record: &UsageRecord) -> StoreResult<UsageRecord>;

    /// The user's reservations that nobody has settled.
    async fn open_reservations(&self, user: &UserId) -> StoreResult<Vec<Reservation>>;

    /// Reservations that expired before `now`, oldest first, over all users.
    async fn expired_reservations(&self, now: Timestamp, limit: u32) -> StoreResult<Vec<Reservation>>;

    /// The sum of a session's records.
    async fn session_usage(&self, session: SessionId) -> StoreResult<UsageSum>;

    /// Stores the sum of a session's records in its document. One of fewer calls than the stored one is dropped.
    async fn save_session_usage(&self, session: SessionId, usage: &UsageSum) -> StoreResult<()>;

    /// The user's accounts of the days from `from` on, oldest first.
    async fn user_usage(&self, user: &UserId, from: Day, limit: u32) -> StoreResult<Vec<DayUsage>>;
}

/// A store shared by all parts of the brain.
pub type SharedStore = Arc<dyn Store>;
