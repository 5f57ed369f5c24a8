//! The embedded store: one SQLite file, for one brain. Writes go through one thread that commits them in groups, reads
//! through a few connections of their own; with the write-ahead log neither waits for the other.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use chatbox_shared::clock::{Clock, SystemClock, Timestamp};
use chatbox_shared::ids::{ClientMessageId, MessageId, Seq, SessionId, UserId};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};

use super::record::{self, MAX_SEQ, signed};
use super::{Appended, EntryRow, SessionCursor, SessionRow, StateFilter, Store, StoreResult, Summary, Totals};
use error::from_sqlite;
use readers::Readers;
use rows::{id_to_sql, parameters};
use writer::Writer;

mod error;
#[cfg(test)]
mod plans;
mod queries;
mod readers;
mod rows;
mod schema;
mod writer;

/// Entries deleted in one step, so that an erasure does not keep other writes waiting for long.
const DELETE_BATCH: usize = 500;

/// A store in one file.
pub struct SqliteStore {
    writer: Writer,
    readers: Readers,
    clock: Arc<dyn Clock>,
}

impl SqliteStore {
    /// Opens the file, making it where there is none; its folder must exist. [`Store::migrate`] makes the tables.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`] where the file cannot be opened, [`super::StoreError::Refused`] where a newer chatbox made it,
    /// [`super::StoreError::Corrupt`] where it is no database.
    pub fn open(path: &Path) -> StoreResult<Self> {
        Self::with_clock(path, Arc::new(SystemClock))
    }

    /// As [`SqliteStore::open`], with another clock.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn with_clock(path: &Path, clock: Arc<dyn Clock>) -> StoreResult<Self> {
        let writer = Writer::start(schema::open_writer(path)?)?;
        Ok(Self { writer, readers: Readers::new(path.to_owned()), clock })
    }

    /// Runs a statement that changes rows; says how many.
    async fn change(&self, sql: &'static str, parameters: Vec<Sql>) -> StoreResult<usize> {
        self.writer.write(move |connection| execute(connection, sql, parameters).map_err(from_sqlite)).await
    }

    async fn entries(&self, sql: &'static str, parameters: Vec<Sql>) -> StoreResult<Vec<EntryRow>> {
        self.readers.read(move |connection| rows(connection, sql, parameters, rows::read_entry)).await
    }

    async fn one_entry(&self, sql: &'static str, parameters: Vec<Sql>) -> StoreResult<Option<EntryRow>> {
        Ok(self.entries(sql, parameters).await?.pop())
    }
}

fn execute(connection: &Connection, sql: &str, parameters: Vec<Sql>) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params_from_iter(parameters))
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    parameters: Vec<Sql>,
    read: impl Fn(&rusqlite::Row<'_>) -> StoreResult<T>,
) -> StoreResult<Vec<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let mut rows = statement.query(params_from_iter(parameters)).map_err(from_sqlite)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        found.push(read(row)?);
    }
    Ok(found)
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

fn number(number: u64) -> StoreResult<Sql> {
    signed(number).map(Sql::Integer)
}

fn text(text: &str) -> Sql {
    Sql::Text(text.to_owned())
}

#[async_trait]
impl Store for SqliteStore {
    async fn now(&self) -> StoreResult<Timestamp> {
        self.readers.read(schema::version).await?;
        Ok(self.clock.now())
    }

    async fn migrate(&self) -> StoreResult<()> {
        self.writer.write(schema::migrate).await
    }

    async fn missing_indexes(&self) -> StoreResult<Vec<String>> {
        // The schema is made as a whole, and its version says that it is there.
        let version = self.readers.read(schema::version).await?;
        Ok(if version < schema::VERSION { vec![format!("layout {}", schema::VERSION)] } else { Vec::new() })
    }

    async fn create_session(&self, row: &SessionRow) -> StoreResult<bool> {
        let values = parameters(record::session::FIELDS, &record::session::fields(row)?);
        Ok(self.change(queries::CREATE_SESSION, values).await? > 0)
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
        // Without a cursor the page begins after a session that is later than any.
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
        self.readers.read(move |connection| rows(connection, sql, values, rows::read_session)).await
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

    async fn mark_read(&self, session: SessionId, seq: Seq) -> StoreResult<()> {
        self.change(queries::MARK_READ, vec![id_to_sql(session.0), number(seq)?]).await.map(drop)
    }

    async fn add_totals(&self, session: SessionId, answer: &Totals) -> StoreResult<()> {
        let fields = record::session::total_fields(answer)?;
        let mut values = vec![id_to_sql(session.0)];
        values.extend(parameters(&fields.map(|(name, _)| name), &fields));
        self.change(queries::ADD_TOTALS, values).await.map(drop)
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
        self.one_entry(queries::STREAMING_ANSWER, vec![id_to_sql(session.0)]).await
    }

    async fn latest_answer(&self, session: SessionId, reply_to: Seq) -> StoreResult<Option<EntryRow>> {
        self.one_entry(queries::LATEST_ANSWER, vec![id_to_sql(session.0), number(reply_to)?]).await
    }

    async fn update_answer(&self, row: &EntryRow, fence: u64) -> StoreResult<bool> {
        let mut values = vec![id_to_sql(row.meta.session.0), number(row.meta.seq)?, number(fence)?];
        values.extend(parameters(record::entry::CHANGING, &record::entry::fields(row)?));
        Ok(self.change(queries::UPDATE_ANSWER, values).await? > 0)
    }

    async fn next_unanswered(&self, session: SessionId) -> StoreResult<Option<EntryRow>> {
        self.one_entry(queries::NEXT_UNANSWERED, vec![id_to_sql(session.0)]).await
    }

    async fn clear_need(&self, session: SessionId, id: MessageId, seq: Seq) -> StoreResult<()> {
        self.change(queries::CLEAR_NEED, vec![id_to_sql(session.0), number(seq)?, id_to_sql(id.0)]).await.map(drop)
    }

    async fn expired_answers(&self, now: Timestamp, limit: u32) -> StoreResult<Vec<EntryRow>> {
        self.entries(queries::EXPIRED_ANSWERS, vec![Sql::Integer(now.0), Sql::Integer(limit.into())]).await
    }

    async fn unanswered_between(&self, from: Timestamp, before: Timestamp, limit: u32) -> StoreResult<Vec<EntryRow>> {
        let parameters = [from.0, before.0, limit.into()].map(Sql::Integer);
        self.entries(queries::UNANSWERED_BETWEEN, parameters.to_vec()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    fn place() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("chatbox.db");
        (folder, file)
    }

    #[tokio::test]
    async fn migrating_again_changes_nothing_and_data_outlives_the_store() {
        let (_folder, file) = place();
        let row = crate::store::conformance::session_row("user");
        let store = SqliteStore::open(&file).unwrap();
        store.migrate().await.unwrap();
        store.create_session(&row).await.unwrap();
        drop(store);
        let store = SqliteStore::open(&file).unwrap();
        store.migrate().await.unwrap();
        assert_eq!(store.session(row.id).await.unwrap(), Some(row));
    }

    #[tokio::test]
    async fn only_the_owner_may_read_the_files() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, file) = place();
        let store = SqliteStore::open(&file).unwrap();
        store.migrate().await.unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
        }
    }

    #[tokio::test]
    async fn a_file_of_a_newer_chatbox_is_refused() {
        let (_folder, file) = place();
        Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let Err(StoreError::Refused(text)) = SqliteStore::open(&file) else { panic!("it was opened") };
        assert!(text.contains("99") && text.contains("newer"), "{text}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_and_a_missing_folder_are_told_apart() {
        let (folder, file) = place();
        std::fs::write(&file, "this is not a database, only some text that is long enough to be read").unwrap();
        assert!(matches!(SqliteStore::open(&file), Err(StoreError::Corrupt(_))));
        let nowhere = folder.path().join("missing").join("chatbox.db");
        assert!(matches!(SqliteStore::open(&nowhere), Err(StoreError::Unavailable(_))));
    }

    #[tokio::test]
    async fn a_full_disk_is_unavailable_and_passes() {
        let (_folder, file) = place();
        let store = SqliteStore::open(&file).unwrap();
        store.migrate().await.unwrap();
        let set_limit = |pages: i64| {
            store.writer.write(move |connection| {
                connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).map_err(from_sqlite)
            })
        };
        set_limit(1).await.unwrap();
        let rows: Vec<_> = (0..200).map(|_| crate::store::conformance::session_row("user")).collect();
        let (mut stored, mut failed) = (Vec::new(), 0);
        let outcomes = futures_util::future::join_all(rows.iter().map(|row| store.create_session(row))).await;
        for (row, outcome) in rows.iter().zip(outcomes) {
            match outcome {
                Ok(true) => stored.push(row),
                Err(StoreError::Unavailable(_)) => failed += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(failed > 0, "200 sessions found room");
        for row in stored {
            assert!(store.session(row.id).await.unwrap().is_some(), "told stored, and it is not");
        }
        set_limit(1_000_000).await.unwrap();
        assert!(store.create_session(&crate::store::conformance::session_row("user")).await.unwrap());
    }

    #[tokio::test]
    async fn a_failed_write_leaves_the_others_of_its_group_alone() {
        let (_folder, file) = place();
        let store = SqliteStore::open(&file).unwrap();
        store.migrate().await.unwrap();
        let rows: Vec<_> = (0..20).map(|_| crate::store::conformance::session_row("user")).collect();
        let writes = rows.iter().enumerate().map(|(index, row)| {
            let values = parameters(record::session::FIELDS, &record::session::fields(row).unwrap());
            store.writer.write(move |connection| {
                execute(connection, queries::CREATE_SESSION, values).map_err(from_sqlite)?;
                if index % 2 == 0 { Ok(()) } else { Err(StoreError::Refused("on purpose".into())) }
            })
        });
        futures_util::future::join_all(writes).await;
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(store.session(row.id).await.unwrap().is_some(), index % 2 == 0, "write {index}");
        }
    }
}
