//! What MongoDB's faults mean to the callers of a store.

use mongodb::error::{Error, ErrorKind, RETRYABLE_ERROR, RETRYABLE_WRITE_ERROR, WriteFailure};

use super::indexes;
use crate::store::{Appended, EntryRow, StoreError, StoreResult, record};

/// A unique key stands against the write.
const DUPLICATE_KEY: i32 = 11000;

/// What a server says while it cannot serve, and will again: elections, shutdown, lost peers, time limits, a full disk.
const PASSING: [i32; 26] = [
    6, 7, 9, 24, 46, 50, 64, 89, 91, 100, 112, 133, 134, 189, 202, 262, 9001, 10058, 10107, 11600, 11601, 11602, 13435,
    13436, 13388, 14031,
];

/// A fault of the driver or the server as one of the store.
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
        // The text of a duplicate quotes the values of the key: a user's id has no place in a log.
        _ => match duplicate(&error) {
            Some(index) => StoreError::Refused(format!("the unique index {index:?} stands against it")),
            None => StoreError::Refused(text),
        },
    }
}

/// The index a write ran into. The server names it before the values: `… collection: db.messages index: NAME dup key: …`.
pub(super) fn duplicate(error: &Error) -> Option<&str> {
    let ErrorKind::Write(WriteFailure::WriteError(write)) = error.kind.as_ref() else { return None };
    if write.code != DUPLICATE_KEY {
        return None;
    }
    let name = write.message.split_once(" index: ").map_or("", |(_, rest)| rest);
    Some(name.split_once(" dup key").map_or(name, |(name, _)| name).trim())
}

/// Which unique key an insert of `row` ran into.
pub(super) fn conflict(index: &str, row: &EntryRow) -> StoreResult<Appended> {
    match index {
        indexes::SID_SEQ => Ok(Appended::SeqTaken),
        indexes::SID_UID_CMID => Ok(Appended::DuplicateMessage),
        indexes::SID_RE_GEN => Ok(Appended::AnswerExists),
        indexes::SID_STREAMING => Ok(Appended::StreamingExists),
        indexes::ID => record::entry::id_taken(row),
        other => Err(StoreError::Refused(format!("the unknown unique index {other:?} stands against an entry"))),
    }
}
