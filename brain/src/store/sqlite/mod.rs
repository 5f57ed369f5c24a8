//! The embedded store: one SQLite file for one brain. One thread writes and commits in groups, a few connections read.
//! With the write-ahead log they do not block each other.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use chatbox_shared::clock::{Clock, SystemClock, Timestamp};
use chatbox_shared::ids::{ClientMessageId, MessageId, Seq, SessionId, UserId};
use rusqlite::Connection;
use rusqlite::types::Value as Sql;

use super::pages::{ListedRow, full_page, lease_page};
use super::record::{self, MAX_SEQ};
use super::unreadable::UnreadableRows;
use super::{
    AnswerVersion, Appended, EntryRow, LeaseCursor, LeasePage, SessionCursor, SessionRow, StateFilter, Store,
    StoreResult, Summary, WrappedKey,
};
use crate::ledger::{Allowance, Day, DayUsage, Reservation, UsageRecord, UsageSum};
use crate::log::entry::EntryState;
use error::from_sqlite;
use lock::FileLock;
use readers::Readers;
use rows::{id_to_sql, parameters};
use statements::{execute, number, rows, text};
use writer::Writer;

mod error;
mod ledger;
mod lock;
#[cfg(test)]
mod plans;
mod queries;
mod readers;
mod rows;
mod schema;
mod statements;
#[cfg(test)]
mod tests;
mod writer;

/// Entries deleted per step, so that an erasure does not delay other writes for long.
const DELETE_BATCH: usize = 500;

/// A store in one file.
pub struct SqliteStore {
    writer: Writer,
    readers: Readers,
    clock: Arc<dyn Clock>,
    unreadable: UnreadableRows,
    /// Held until the store is dropped.
    _lock: Option<FileLock>,
}

impl SqliteStore {
    /// Opens the file and creates it if missing; its folder must exist. [`Store::migrate`] creates the tables.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`] where the file cannot be opened, [`super::StoreError::Refused`] where a newer
    /// chatbox wrote it, [`super::StoreError::Corrupt`] where it is not a database.
    pub fn open(path: &Path) -> StoreResult<Self> {
        Self::with_clock(path, Arc::new(SystemClock))
    }

    /// As [`SqliteStore::open`], with another clock.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn with_clock(path: &Path, clock: Arc<dyn Clock>) -> StoreResult<Self> {
        let writer = Writer::start(schema::open_writer(path)?)?;
        let unreadable = UnreadableRows::default();
        Ok(Self { writer, readers: Readers::new(path.to_owned()), clock, unreadable, _lock: None })
    }

    /// As [`SqliteStore::open`], for the one brain that serves the file: takes the lock beside it.
    ///
    /// # Errors
    /// [`super::StoreError::Refused`] where another process holds the lock; else as [`SqliteStore::open`].
    pub fn open_exclusive(path: &Path) -> StoreResult<Self> {
        let lock = FileLock::take(path)?;
        Ok(Self { _lock: Some(lock), ..Self::open(path)? })
    }

    /// Runs a statement that changes rows; returns their number.
    async fn change(&self, sql: &'static str, parameters: Vec<Sql>) -> StoreResult<usize> {
        self.writer.write(move |connection| execute(connection, sql, parameters).map_err(from_sqlite)).await
    }

    async fn entries(&self, sql: &'static str, parameters: Vec<Sql>) -> StoreResult<Vec<EntryRow>> {
        let unreadable = self.unreadable.clone();
        let read = move |connection: &Connection| {
            rows(connection, sql, parameters, |row| rows::read_entry_or_replace(row, &unreadable))
        };
        Ok(self.readers.read(read).await?.into_iter().flatten().collect())
    }

    /// The next `limit` sessions of a list, each with its place.
    async fn listed(
        &self,
        user: &UserId,
        filter: StateFilter,
        after: Option<SessionCursor>,
        limit: u32,
    ) -> StoreResult<Vec<ListedRow>> {
        // Without a cursor the page begins after the latest possible session.
        let (last_at, id) =
            after.map_or((i64::MAX, Sql::Blob(vec![0xff; 16])), |after| (after.last_at.0, id_to_sql(after.id.0)));
        let mut values = vec![text(user.as_str()), Sql::Integer(last_at), id, Sql::Integer(limit.into())];
        let sql = match filter {
            StateFilter::Any => queries::LIST_ALL,
            StateFilter::Active | StateFilter::Ended => queries::LIST_STATE,
        };
        match filter {
            StateFilter::Any => {}
            StateFilter::Active => values.push(text(record::session::ACTIVE)),
            StateFilter::Ended => values.push(text(record::session::ENDED)),
        }
        let unreadable = self.unreadable.clone();
        let read = move |connection: &Connection| {
            rows(connection, sql, values, |row| rows::read_listed_session(row, &unreadable))
        };
        self.readers.read(read).await
    }

    async fn reservations(&self, sql: &'static str, parameters: Vec<Sql>) -> StoreResult<Vec<Reservation>> {
        let unreadable = self.unreadable.clone();
        let read = move |connection: &Connection| {
            rows(connection, sql, parameters, |row| unreadable.skip("accounts", None, rows::read_reservation(row)))
        };
        Ok(self.readers.read(read).await?.into_iter().flatten().collect())
    }

    async fn one_entry(&self, sql: &'static str, parameters: Vec<Sql>) -> StoreResult<Option<EntryRow>> {
        Ok(self.entries(sql, parameters).await?.pop())
    }
}

fn append(connection: &Connection, row: &EntryRow, values: Vec<Sql>) -> StoreResult<Appended> {
    let error = match execute(connection, queries::APPEND, values) {
        Ok(_) => return Ok(Appended::Done),
        Err(error) if error::is_conflict(&error) => error,
        Err(error) => return Err(from_sqlite(error)),
    };
    let place = vec![id_to_sql(row.meta.id.0), id_to_sql(row.meta.session.0), number(row.meta.seq)?];
    let again = rows(connection, queries::IS_APPENDED, place, |_| Ok(()))?;
    if again.is_empty() { error::conflict(error, row) } else { Ok(Appended::Done) }
}

#[async_trait]
impl Store for SqliteStore {
    fn unreadable_rows(&self) -> UnreadableRows {
        self.unreadable.clone()
    }

    async fn now(&self) -> StoreResult<Timestamp> {
        self.readers.read(schema::version).await?;
        Ok(self.clock.now())
    }

    async fn migrate(&self) -> StoreResult<()> {
        self.writer.write(schema::migrate).await
    }

    async fn missing_indexes(&self) -> StoreResult<Vec<String>> {
        // The schema is created as a whole, so its version suffices.
        let version = self.readers.read(schema::version).await?;
        Ok(if version < schema::VERSION { vec![format!("layout {}", schema::VERSION)] } else { Vec::new() })
    }

    async fn create_session(&self, row: &SessionRow) -> StoreResult<bool> {
        let values = parameters(record::session::FIELDS, &record::session::fields(row)?);
        Ok(self.change(queries::CREATE_SESSION, values).await? > 0)
    }

    async fn key_samples(&self, limit: u32) -> StoreResult<Vec<(SessionId, WrappedKey)>> {
        let read = move |connection: &Connection| {
            let mut samples: Vec<(SessionId, WrappedKey)> = Vec::new();
            while samples.len() < limit as usize {
                let after = vec![text(samples.last().map_or("", |(_, key)| &key.kid))];
                let Some(next) = rows(connection, queries::KEY_AFTER, after, rows::read_wrapped_key)?.pop() else {
                    break;
                };
                samples.push(next);
            }
            Ok(samples)
        };
        self.readers.read(read).await
    }

    async fn session(&self, id: SessionId) -> StoreResult<Option<SessionRow>> {
        let id = vec![id_to_sql(id.0)];
        let read = move |connection: &Connection| rows(connection, queries::SESSION, id, rows::read_session);
        Ok(self.readers.read(read).await?.pop())
    }

    async fn list_sessions(
        &self,
        user: &UserId,
        filter: StateFilter,
        after: Option<SessionCursor>,
        limit: u32,
    ) -> StoreResult<Vec<SessionRow>> {
        full_page(after, limit, |after, limit| self.listed(user, filter, after, limit)).await
    }

    async fn save_summary(&self, session: SessionId, summary: &Summary) -> StoreResult<()> {
        let mut values = vec![id_to_sql(session.0)];
        values.extend(parameters(record::session::SUMMARY, &record::session::summary_fields(summary)?));
        self.change(queries::SAVE_SUMMARY, values).await.map(drop)
    }

    async fn rename_session(&self, session: SessionId, name: &[u8]) -> StoreResult<bool> {
        let name = if name.is_empty() { Sql::Null } else { Sql::Blob(name.to_vec()) };
        Ok(self.change(queries::RENAME, vec![id_to_sql(session.0), name]).await? > 0)
    }

    async fn replace_name(&self, session: SessionId, from: &[u8], to: &[u8]) -> StoreResult<bool> {
        let names = [from, to].map(|name| if name.is_empty() { Sql::Null } else { Sql::Blob(name.to_vec()) });
        let values = std::iter::once(id_to_sql(session.0)).chain(names).collect();
        Ok(self.change(queries::REPLACE_NAME, values).await? > 0)
    }

    async fn mark_read(&self, session: SessionId, seq: Seq) -> StoreResult<()> {
        self.change(queries::MARK_READ, vec![id_to_sql(session.0), number(seq)?]).await.map(drop)
    }

    async fn add_response(&self, session: SessionId, took_ms: u64) -> StoreResult<()> {
        self.change(queries::ADD_RESPONSE, vec![id_to_sql(session.0), number(took_ms)?]).await.map(drop)
    }

    async fn erase_session(&self, session: SessionId) -> StoreResult<()> {
        self.change(queries::ERASE_SESSION, vec![id_to_sql(session.0)]).await?;
        let limit = i64::try_from(DELETE_BATCH).unwrap_or(i64::MAX);
        loop {
            let values = vec![id_to_sql(session.0), Sql::Integer(limit)];
            if self.change(queries::DELETE_ENTRIES, values).await? < DELETE_BATCH {
                return Ok(());
            }
        }
    }

    async fn append(&self, row: &EntryRow) -> StoreResult<Appended> {
        let values = parameters(record::entry::FIELDS, &record::entry::fields(row)?);
        let row = EntryRow { meta: row.meta.clone(), content: Vec::new() };
        self.writer.write(move |connection| append(connection, &row, values)).await
    }

    async fn entries_after(&self, session: SessionId, after: Seq, limit: u32) -> StoreResult<Vec<EntryRow>> {
        let values = vec![id_to_sql(session.0), number(after)?, Sql::Integer(limit.into())];
        self.entries(queries::ENTRIES_AFTER, values).await
    }

    async fn entries_before(&self, session: SessionId, before: Seq, limit: u32) -> StoreResult<Vec<EntryRow>> {
        let values = vec![id_to_sql(session.0), number(before.min(MAX_SEQ))?, Sql::Integer(limit.into())];
        let mut entries = self.entries(queries::ENTRIES_BEFORE, values).await?;
        entries.reverse();
        Ok(entries)
    }

    async fn entry(&self, session: SessionId, seq: Seq) -> StoreResult<Option<EntryRow>> {
        self.one_entry(queries::ENTRY, vec![id_to_sql(session.0), number(seq)?]).await
    }

    async fn entry_by_client_id(
        &self,
        session: SessionId,
        sender: &UserId,
        id: ClientMessageId,
    ) -> StoreResult<Option<EntryRow>> {
        let values = vec![id_to_sql(session.0), text(sender.as_str()), id_to_sql(id.0)];
        self.one_entry(queries::ENTRY_BY_CLIENT_ID, values).await
    }

    async fn streaming_answer(&self, session: SessionId) -> StoreResult<Option<EntryRow>> {
        // A placeholder does not stream.
        let row = self.one_entry(queries::STREAMING_ANSWER, vec![id_to_sql(session.0)]).await?;
        Ok(row.filter(|row| row.meta.state == EntryState::Streaming))
    }

    async fn latest_answer(&self, session: SessionId, reply_to: Seq) -> StoreResult<Option<EntryRow>> {
        self.one_entry(queries::LATEST_ANSWER, vec![id_to_sql(session.0), number(reply_to)?]).await
    }

    async fn update_answer(&self, row: &EntryRow, seen: AnswerVersion) -> StoreResult<bool> {
        let mut values = vec![id_to_sql(row.meta.session.0), number(row.meta.seq)?, number(seen.fence)?];
        values.extend([Sql::Integer(seen.rev.into()), Sql::Integer(seen.lease_until.0)]);
        values.extend(parameters(record::entry::CHANGING, &record::entry::fields(row)?));
        Ok(self.change(queries::UPDATE_ANSWER, values).await? > 0)
    }

    async fn next_unanswered(&self, session: SessionId) -> StoreResult<Option<EntryRow>> {
        self.one_entry(queries::NEXT_UNANSWERED, vec![id_to_sql(session.0)]).await
    }

    async fn clear_need(&self, session: SessionId, id: MessageId, seq: Seq) -> StoreResult<()> {
        self.change(queries::CLEAR_NEED, vec![id_to_sql(session.0), number(seq)?, id_to_sql(id.0)]).await.map(drop)
    }

    async fn expired_answers(
        &self,
        before: Timestamp,
        after: Option<LeaseCursor>,
        limit: u32,
    ) -> StoreResult<LeasePage> {
        // Without a cursor the page begins before the lowest possible lease.
        let (lease, id) =
            after.map_or((i64::MIN, Sql::Blob(Vec::new())), |after| (after.lease_until.0, id_to_sql(after.id.0)));
        let values = vec![Sql::Integer(before.0), Sql::Integer(lease), id, Sql::Integer(limit.into())];
        let unreadable = self.unreadable.clone();
        let read = move |connection: &Connection| {
            rows(connection, queries::EXPIRED_ANSWERS, values, |row| rows::read_leased_entry(row, &unreadable))
        };
        Ok(lease_page(self.readers.read(read).await?, limit))
    }

    async fn unanswered_between(&self, from: Timestamp, before: Timestamp, limit: u32) -> StoreResult<Vec<EntryRow>> {
        let parameters = [from.0, before.0, limit.into()].map(Sql::Integer);
        self.entries(queries::UNANSWERED_BETWEEN, parameters.to_vec()).await
    }

    async fn reserve_usage(&self, reservation: &Reservation, allowance: &Allowance) -> StoreResult<bool> {
        let (reservation, allowance) = (reservation.clone(), *allowance);
        self.writer.write(move |connection| ledger::reserve(connection, &reservation, &allowance)).await
    }

    async fn record_usage(&self, record: &UsageRecord) -> StoreResult<UsageRecord> {
        let record = record.clone();
        self.writer.write(move |connection| ledger::record(connection, &record)).await
    }

    async fn open_reservations(&self, user: &UserId) -> StoreResult<Vec<Reservation>> {
        self.reservations(queries::OPEN_RESERVATIONS, vec![text(user.as_str())]).await
    }

    async fn expired_reservations(&self, now: Timestamp, limit: u32) -> StoreResult<Vec<Reservation>> {
        self.reservations(queries::EXPIRED_RESERVATIONS, vec![Sql::Integer(now.0), Sql::Integer(limit.into())]).await
    }

    async fn session_usage(&self, session: SessionId) -> StoreResult<UsageSum> {
        self.readers.read(move |connection| ledger::sum(connection, session)).await
    }

    async fn save_session_usage(&self, session: SessionId, usage: &UsageSum) -> StoreResult<()> {
        let mut values = vec![id_to_sql(session.0)];
        values.extend(parameters(record::usage::SUM, &record::usage::sum_fields(usage)?));
        self.change(queries::SAVE_USAGE, values).await.map(drop)
    }

    async fn user_usage(&self, user: &UserId, from: Day, limit: u32) -> StoreResult<Vec<DayUsage>> {
        let values = vec![text(user.as_str()), text(&from.to_string()), Sql::Integer(limit.into())];
        let unreadable = self.unreadable.clone();
        let read = move |connection: &Connection| {
            rows(connection, queries::ACCOUNTS_FROM, values, |row| {
                unreadable.skip("accounts", None, rows::read_account(row))
            })
        };
        Ok(self.readers.read(read).await?.into_iter().flatten().collect())
    }
}
