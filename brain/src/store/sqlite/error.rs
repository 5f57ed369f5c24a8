//! SQLite errors as [`StoreError`]s.

use rusqlite::{Error, ErrorCode};

use crate::store::{Appended, EntryRow, StoreError, StoreResult, record};

/// The store error for an SQLite error. A full or failing disk and a lock held too long are temporary; a damaged file
/// is not.
pub(super) fn from_sqlite(error: Error) -> StoreError {
    let text = error.to_string();
    match error {
        Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationAborted
            | ErrorCode::OperationInterrupted
            | ErrorCode::FileLockingProtocolFailed => StoreError::Unavailable(text),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt(text),
            _ => StoreError::Refused(text),
        },
        Error::FromSqlConversionFailure(..) | Error::IntegralValueOutOfRange(..) | Error::InvalidColumnType(..) => {
            StoreError::Corrupt(text)
        }
        _ => StoreError::Refused(text),
    }
}

/// Whether the statement violates a unique key.
pub(super) fn is_conflict(error: &Error) -> bool {
    const UNIQUE: i32 = rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE;
    const PRIMARY: i32 = rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY;
    matches!(error, Error::SqliteFailure(failure, _) if matches!(failure.extended_code, UNIQUE | PRIMARY))
}

/// The outcome of an insert of `row` that violates a unique key. SQLite names the columns of the key in its message.
pub(super) fn conflict(error: Error, row: &EntryRow) -> StoreResult<Appended> {
    let message = match &error {
        Error::SqliteFailure(_, Some(message)) => message.as_str(),
        _ => "",
    };
    match message.strip_prefix("UNIQUE constraint failed: ") {
        Some("messages.sid, messages.seq") => Ok(Appended::SeqTaken),
        Some("messages.sid, messages.uid, messages.cmid") => Ok(Appended::DuplicateMessage),
        Some("messages.sid, messages.re, messages.gen") => Ok(Appended::AnswerExists),
        Some("messages.sid") => Ok(Appended::StreamingExists),
        Some("messages._id") => record::entry::id_taken(row),
        _ => Err(from_sqlite(error)),
    }
}
