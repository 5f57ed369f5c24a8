//! The tables of the embedded store, and the setup of connections.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::from_sqlite;
use crate::store::{StoreError, StoreResult};

/// The layout version this build writes, stored as the file's `user_version`. A file with a higher one is refused.
pub(super) const VERSION: i64 = 4;

/// How long a connection waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(3);

/// Columns have the names of the fields in MongoDB. Every index serves the query named above it.
const CREATE: &str = r#"
-- Of layout 3; exp_id_streaming replaces it.
DROP INDEX IF EXISTS exp_streaming;

CREATE TABLE IF NOT EXISTS sessions (
    _id BLOB PRIMARY KEY NOT NULL,
    uid TEXT NOT NULL, ep TEXT NOT NULL, nm BLOB, ts INTEGER NOT NULL,
    "dk.kid" TEXT, "dk.w" BLOB, v INTEGER NOT NULL,
    st TEXT NOT NULL, seq INTEGER NOT NULL, lastTs INTEGER NOT NULL, endTs INTEGER,
    msgCnt INTEGER NOT NULL, modelId TEXT NOT NULL, adminAssisted INTEGER NOT NULL, adminId TEXT, adminNm TEXT,
    joinSeq INTEGER NOT NULL, helpReq INTEGER NOT NULL, helpTs INTEGER, readSeq INTEGER NOT NULL,
    calls INTEGER NOT NULL DEFAULT 0, tokIn INTEGER NOT NULL, tokCch INTEGER NOT NULL DEFAULT 0,
    tokOut INTEGER NOT NULL, cost INTEGER NOT NULL DEFAULT 0,
    respCnt INTEGER NOT NULL, respSum INTEGER NOT NULL, respMax INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS messages (
    _id BLOB PRIMARY KEY NOT NULL,
    sid BLOB NOT NULL, seq INTEGER NOT NULL, rev INTEGER NOT NULL, ts INTEGER NOT NULL,
    kind TEXT NOT NULL, st TEXT NOT NULL, snd TEXT NOT NULL, uid TEXT, sndNm TEXT, ct BLOB,
    cmid BLOB, need INTEGER,
    re INTEGER, gen INTEGER, rgn INTEGER, modelId TEXT, askId TEXT, try INTEGER, idx INTEGER,
    own TEXT, fen INTEGER, exp INTEGER, fin TEXT, err TEXT, rty INTEGER,
    tokIn INTEGER, tokCch INTEGER, tokOut INTEGER, est INTEGER, ftMs INTEGER, ms INTEGER, conv TEXT,
    ev TEXT, evUid TEXT, evNm TEXT, evRsn INTEGER
) STRICT;

-- The ledger: inserted once, never changed.
CREATE TABLE IF NOT EXISTS usage (
    _id BLOB PRIMARY KEY NOT NULL,
    uid TEXT NOT NULL, sid BLOB NOT NULL, day TEXT NOT NULL, ts INTEGER NOT NULL,
    purp TEXT NOT NULL, seq INTEGER NOT NULL, try INTEGER NOT NULL, modelId TEXT NOT NULL, prov TEXT NOT NULL,
    tokIn INTEGER NOT NULL, tokCch INTEGER NOT NULL, tokOut INTEGER NOT NULL, est INTEGER NOT NULL,
    fin TEXT NOT NULL, err TEXT, ftMs INTEGER, ms INTEGER NOT NULL, cost INTEGER
) STRICT;

-- One row per user and day.
CREATE TABLE IF NOT EXISTS accounts (
    uid TEXT NOT NULL, day TEXT NOT NULL,
    calls INTEGER NOT NULL, tokIn INTEGER NOT NULL, tokCch INTEGER NOT NULL, tokOut INTEGER NOT NULL,
    cost INTEGER NOT NULL, resTok INTEGER NOT NULL, resCost INTEGER NOT NULL,
    PRIMARY KEY (uid, day)
) STRICT;

-- What is reserved in an account: those of its user and day.
CREATE TABLE IF NOT EXISTS reservations (
    id BLOB PRIMARY KEY NOT NULL,
    uid TEXT NOT NULL, day TEXT NOT NULL, sid BLOB NOT NULL,
    purp TEXT NOT NULL, seq INTEGER NOT NULL, try INTEGER NOT NULL, modelId TEXT NOT NULL, prov TEXT NOT NULL,
    ts INTEGER NOT NULL, tok INTEGER NOT NULL, cost INTEGER NOT NULL, "in" INTEGER NOT NULL, exp INTEGER NOT NULL
) STRICT;

-- The log in its order; one entry per place.
CREATE UNIQUE INDEX IF NOT EXISTS sid_seq ON messages (sid, seq);
-- A sender's message by the client's id; each is stored once.
CREATE UNIQUE INDEX IF NOT EXISTS sid_uid_cmid ON messages (sid, uid, cmid) WHERE cmid IS NOT NULL;
-- The latest answer to a message; one answer per generation.
CREATE UNIQUE INDEX IF NOT EXISTS sid_re_gen ON messages (sid, re, gen) WHERE re IS NOT NULL;
-- A session's streaming answer; there is one at most.
CREATE UNIQUE INDEX IF NOT EXISTS sid_streaming ON messages (sid) WHERE st = 'streaming';
-- Streaming answers whose lease has ended.
CREATE INDEX IF NOT EXISTS exp_id_streaming ON messages (exp, _id) WHERE st = 'streaming';
-- A session's oldest message that needs an answer.
CREATE INDEX IF NOT EXISTS sid_seq_need ON messages (sid, seq) WHERE need = 1;
-- Messages that need an answer, over all sessions.
CREATE INDEX IF NOT EXISTS ts_need ON messages (ts) WHERE need = 1;
-- A user's sessions, latest activity first.
CREATE INDEX IF NOT EXISTS uid_lastTs ON sessions (uid, lastTs DESC, _id DESC) WHERE "dk.kid" IS NOT NULL;
-- The same, active or ended ones only.
CREATE INDEX IF NOT EXISTS uid_st_lastTs ON sessions (uid, st, lastTs DESC, _id DESC) WHERE "dk.kid" IS NOT NULL;
-- The master keys in use, each once.
CREATE INDEX IF NOT EXISTS kid ON sessions ("dk.kid") WHERE "dk.kid" IS NOT NULL;
-- The sum of a session's records.
CREATE INDEX IF NOT EXISTS sid ON usage (sid);
-- A user's reservations.
CREATE INDEX IF NOT EXISTS uid_exp ON reservations (uid, exp);
-- Reservations that have expired, over all users.
CREATE INDEX IF NOT EXISTS exp ON reservations (exp);
"#;

/// What a file of layout 1 lacks besides what [`CREATE`] adds.
const FROM_1_TO_2: &str = "
ALTER TABLE sessions ADD COLUMN calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN tokCch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN cost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN rty INTEGER;
ALTER TABLE messages ADD COLUMN askId TEXT;
ALTER TABLE messages ADD COLUMN tokCch INTEGER;
";

/// Opens the writing connection and creates the file if missing.
pub(super) fn open_writer(path: &Path) -> StoreResult<Connection> {
    // Readable by the owner only; SQLite gives its other files the same mode.
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    drop(file.map_err(|error| StoreError::Unavailable(format!("cannot open the database file: {error}")))?);
    let connection = Connection::open_with_flags(path, flags()).map_err(from_sqlite)?;
    set_up(&connection).map_err(from_sqlite)?;
    let version = version(&connection)?;
    if version > VERSION {
        let text =
            format!("the database file has layout {version} of a newer chatbox; this one supports up to {VERSION}");
        return Err(StoreError::Refused(text));
    }
    Ok(connection)
}

/// Opens a read-only connection.
pub(super) fn open_reader(path: &Path) -> StoreResult<Connection> {
    let connection = Connection::open_with_flags(path, flags()).map_err(from_sqlite)?;
    set_up(&connection).map_err(from_sqlite)?;
    connection.pragma_update(None, "query_only", true).map_err(from_sqlite)?;
    Ok(connection)
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Readers never wait for the writer, and a commit returns once the log is on disk.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Deleted data, above all wrapped keys, is overwritten and not only unlinked.
    connection.pragma_update(None, "secure_delete", true)?;
    // In KiB per connection; the system's page cache serves all connections.
    connection.pragma_update(None, "cache_size", -512)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// The layout version of the file; 0 before the first [`migrate`].
pub(super) fn version(connection: &Connection) -> StoreResult<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(from_sqlite)
}

/// Migrates an older file to this layout, creates what is missing and writes the version. Runs in the writer's
/// transaction, so it is atomic.
pub(super) fn migrate(connection: &Connection) -> StoreResult<()> {
    if version(connection)? == 1 {
        connection.execute_batch(FROM_1_TO_2).map_err(from_sqlite)?;
    }
    connection.execute_batch(CREATE).map_err(from_sqlite)?;
    connection.pragma_update(None, "user_version", VERSION).map_err(from_sqlite)
}
