//! MongoDB errors as [`StoreError`]s.

use mongodb::error::{Error, ErrorKind, RETRYABLE_ERROR, RETRYABLE_WRITE_ERROR, WriteFailure};

use super::indexes;
use crate::store::{Appended, EntryRow, StoreError, StoreResult, record};

/// The write violates a unique key.
const DUPLICATE_KEY: i32 = 11000;

/// Error codes of a server that is temporarily unable to serve: elections, shutdown, lost peers, time limits, a full
/// disk.
const PASSING: [i32; 26] = [
    6, 7, 9, 24, 46, 50, 64, 89, 91, 100, 112, 133, 134, 189, 202, 262, 9001, 10058, 10107, 11600, 11601, 11602, 13435,
    13436, 13388, 14031,
];

/// The store error for an error of the driver or the server.
pub(super) fn from_mongo(error: Error) -> StoreError {
    let text = error.kind.to_string();
    if error.contains_label(RETRYABLE_WRITE_ERROR) || error.contains_label(RETRYABLE_ERROR) {
        return StoreError::Unavailable(text);
    }
    match error.kind.as_ref() {
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Shutdown
        | ErrorKind::Write(WriteFailure::WriteConcernError(_)) => StoreError::Unavailable(text),
        ErrorKind::Command(command) if PASSING.contains(&command.code) => StoreError::Unavailable(text),
        ErrorKind::Write(WriteFailure::WriteError(write)) if PASSING.contains(&write.code) => {
            StoreError::Unavailable(text)
        }
        ErrorKind::BsonDeserialization(_) | ErrorKind::Bson(_) | ErrorKind::InvalidResponse { .. } => {
            StoreError::Corrupt(text)
        }
        // The text of a duplicate key quotes its values, and a user id must not be logged.
        _ => match duplicate(&error) {
            Some(index) => StoreError::Refused(format!("it violates the unique index {index:?}")),
            None => StoreError::Refused(text),
        },
    }
}

/// The unique index that a write violates. The server names it before the values: `… collection: db.messages index:
/// NAME dup key: …`.
pub(super) fn duplicate(error: &Error) -> Option<&str> {
    let ErrorKind::Write(WriteFailure::WriteError(write)) = error.kind.as_ref() else { return None };
    if write.code != DUPLICATE_KEY {
        return None;
    }
    let name = write.message.split_once(" index: ").map_or("", |(_, rest)| rest);
    Some(name.split_once(" dup key").map_or(name, |(name, _)| name).trim())
}

/// The outcome of an insert of `row` that violates this unique index.
pub(super) fn conflict(index: &str, row: &EntryRow) -> StoreResult<Appended> {
    match index {
        indexes::SID_SEQ => Ok(Appended::SeqTaken),
        indexes::SID_UID_CMID => Ok(Appended::DuplicateMessage),
        indexes::SID_RE_GEN => Ok(Appended::AnswerExists),
        indexes::SID_STREAMING => Ok(Appended::StreamingExists),
        indexes::ID => record::entry::id_taken(row),
        other => Err(StoreError::Refused(format!("an entry violates the unknown unique index {other:?}"))),
    }
}
