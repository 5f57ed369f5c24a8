//! Errors that clients see: one closed list of codes, each with its text, its HTTP status, and whether a retry may help.
//! Details stay in the log; `error_id` finds the log line.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use crate::proto;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $http:literal, $retryable:literal, $text:literal;)*) => {
        /// The kind of an error, as listed in docs/protocol.md.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The status of an HTTP response with this code.
            pub fn http_status(self) -> u16 {
                match self { $(Self::$variant => $http,)* }
            }

            /// True if the same request may succeed later.
            pub fn retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }

            /// A generic sentence that is safe to show to anyone.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

codes! {
    /// The request does not fit the protocol; `field` says where.
    InvalidMessage = "invalid_message", 400, false, "The request is invalid.";
    /// No valid token.
    Unauthorized = "unauthorized", 401, false, "A valid token is required.";
    /// The token does not give this right.
    Forbidden = "forbidden", 403, false, "You do not have permission to do this.";
    /// The object does not exist, or belongs to another user.
    NotFound = "not_found", 404, false, "Not found.";
    /// The request contradicts stored data.
    Conflict = "conflict", 409, false, "The request conflicts with the stored data.";
    /// Another admin assists in this session.
    AlreadyAssisted = "already_assisted", 409, false, "Another person is already assisting in this session.";
    /// Only the assisting admin may do this.
    NotAssisting = "not_assisting", 409, false, "You are not assisting in this session.";
    /// The session takes no more messages.
    SessionEnded = "session_ended", 409, false, "The session has ended.";
    /// Over a rate limit.
    RateLimited = "rate_limited", 429, true, "Too many requests; slow down.";
    /// Over a size limit.
    TooLarge = "too_large", 413, false, "The content is too large.";
    /// The file type is not accepted.
    UnsupportedMedia = "unsupported_media", 415, false, "This file type is not supported.";
    /// The web page's origin is not on the list.
    OriginNotAllowed = "origin_not_allowed", 403, false, "This origin is not allowed.";
    /// The address accepts WebSocket upgrades only.
    UpgradeRequired = "upgrade_required", 426, false, "This address accepts only WebSocket connections (version 13).";
    /// A usage quota is exceeded.
    QuotaExceeded = "quota_exceeded", 429, false, "The usage quota is exceeded.";
    /// No such model, or it is switched off.
    ModelUnavailable = "model_unavailable", 422, false, "This model is not available.";
    /// The model's provider cannot be reached or is overloaded.
    ProviderUnavailable = "provider_unavailable", 502, true, "The model is temporarily unavailable.";
    /// The model's provider took too long.
    ProviderTimeout = "provider_timeout", 504, true, "The model took too long to answer.";
    /// The model's provider refused the request.
    ProviderRejected = "provider_rejected", 502, false, "The model refused the request.";
    /// The provider's content filter blocked the answer.
    ContentFiltered = "content_filtered", 422, false, "The model's content filter blocked the answer.";
    /// The store cannot be read or written now.
    StorageUnavailable = "storage_unavailable", 503, true, "The conversation store is temporarily unavailable.";
    /// The service cannot serve the request now.
    Unavailable = "unavailable", 503, true, "The service is temporarily unavailable.";
    /// No result in time; the outcome is unknown.
    Timeout = "timeout", 504, true, "The request timed out.";
    /// An error of the service itself.
    Internal = "internal", 500, false, "Something went wrong on the server.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error for a client: every field is safe to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message} (error_id {error_id})")]
pub struct Failure {
    /// What went wrong.
    pub code: ErrorCode,
    /// Safe text; by default the code's own.
    pub message: String,
    /// The invalid field of the request.
    pub field: Option<String>,
    /// How long the client should wait before a retry.
    pub retry_after: Option<Duration>,
    /// Finds the log line.
    pub error_id: String,
}

impl Failure {
    /// A failure with the code's own text.
    pub fn new(code: ErrorCode) -> Self {
        Self::with_message(code, code.text())
    }

    /// A failure with this text, which must be safe to show.
    pub fn with_message(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            retry_after: None,
            error_id: Uuid::now_v7().simple().to_string(),
        }
    }

    /// An invalid request; names the field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::with_message(ErrorCode::InvalidMessage, message) }
    }

    /// A field over its size limit; the message says the limit.
    pub fn too_large(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::with_message(ErrorCode::TooLarge, message) }
    }

    /// Adds how long the client should wait before a retry.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

impl From<&Failure> for proto::Error {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.code.as_str().to_owned(),
            message: failure.message.clone(),
            retryable: failure.code.retryable(),
            retry_after_ms: failure.retry_after.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            field: failure.field.clone().unwrap_or_default(),
            error_id: failure.error_id.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
    }
}
