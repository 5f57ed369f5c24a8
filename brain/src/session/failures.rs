//! Turns errors of the store and of the cipher into what a client may see. The details go to the log, under the error id.

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::SessionId;

use crate::store::StoreError;

/// Logs a failed operation on one session.
pub(crate) fn storage(session: SessionId, error: &StoreError) -> Failure {
    let failure = Failure::new(code_of(error));
    tracing::warn!(%session, error_id = failure.error_id, %error, "a store operation failed");
    failure
}

/// Logs a list that could not be read.
pub(crate) fn list_failed(error: &StoreError) -> Failure {
    let failure = Failure::new(code_of(error));
    tracing::warn!(error_id = failure.error_id, %error, "a list could not be read");
    failure
}

/// Logs a session whose key or content cannot be used.
pub(crate) fn internal(session: SessionId, error: &dyn std::error::Error) -> Failure {
    let failure = Failure::new(ErrorCode::Internal);
    tracing::error!(%session, error_id = failure.error_id, %error, "a session cannot be used");
    failure
}

fn code_of(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::Unavailable(_) => ErrorCode::StorageUnavailable,
        StoreError::Corrupt(_) | StoreError::Refused(_) => ErrorCode::Internal,
    }
}
