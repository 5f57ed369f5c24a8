//! The faults the outside may see: one closed list of codes, each with its text, its HTTP and gRPC status and whether
//! trying again may help. What really happened stays in the log, found by `error_id`.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use crate::proto;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $http:literal, $grpc:ident, $retryable:literal, $text:literal;)*) => {
        /// What went wrong, in the words of docs/protocol.md.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The status of an HTTP answer with this code.
            pub fn http_status(self) -> u16 {
                match self { $(Self::$variant => $http,)* }
            }

            /// The status of a gRPC answer with this code.
            pub fn grpc_status(self) -> tonic::Code {
                match self { $(Self::$variant => tonic::Code::$grpc,)* }
            }

            /// May the same request succeed later?
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
    InvalidMessage = "invalid_message", 400, InvalidArgument, false, "The request is not valid.";
    /// No valid token.
    Unauthorized = "unauthorized", 401, Unauthenticated, false, "A valid token is needed.";
    /// The token does not give this right.
    Forbidden = "forbidden", 403, PermissionDenied, false, "This is not allowed.";
    /// There is none, or it is somebody else's.
    NotFound = "not_found", 404, NotFound, false, "There is no such thing.";
    /// It contradicts what is stored.
    Conflict = "conflict", 409, AlreadyExists, false, "This conflicts with what is already there.";
    /// Another human has taken over.
    AlreadyAssisted = "already_assisted", 409, FailedPrecondition, false, "Somebody else is already assisting.";
    /// Only the assisting human may do this.
    NotAssisting = "not_assisting", 409, FailedPrecondition, false, "You are not assisting in this session.";
    /// The session takes no more messages.
    SessionEnded = "session_ended", 409, FailedPrecondition, false, "The session has ended.";
    /// Too much at once.
    RateLimited = "rate_limited", 429, ResourceExhausted, true, "Too many requests; slow down.";
    /// Over a size limit.
    TooLarge = "too_large", 413, InvalidArgument, false, "This is too large.";
    /// A file type that is not taken.
    UnsupportedMedia = "unsupported_media", 415, InvalidArgument, false, "This kind of file is not accepted.";
    /// The web page's origin is not on the list.
    OriginNotAllowed = "origin_not_allowed", 403, PermissionDenied, false, "This origin is not allowed.";
    /// The address speaks WebSocket only.
    UpgradeRequired = "upgrade_required", 426, FailedPrecondition, false, "This address speaks WebSocket, version 13.";
    /// The allowance is used up.
    QuotaExceeded = "quota_exceeded", 429, ResourceExhausted, false, "The quota is used up.";
    /// No such model, or it is switched off.
    ModelUnavailable = "model_unavailable", 422, FailedPrecondition, false, "This model is not available.";
    /// The model's provider cannot be reached or is overloaded.
    ProviderUnavailable = "provider_unavailable", 502, Unavailable, true, "The model cannot be reached at the moment.";
    /// The model's provider took too long.
    ProviderTimeout = "provider_timeout", 504, DeadlineExceeded, true, "The model took too long to answer.";
    /// The model's provider refused the request.
    ProviderRejected = "provider_rejected", 502, FailedPrecondition, false, "The model refused the request.";
    /// The provider's content rules withheld the answer.
    ContentFiltered = "content_filtered", 422, FailedPrecondition, false, "The answer was withheld by the model's content rules.";
    /// The store cannot take or give data now.
    StorageUnavailable = "storage_unavailable", 503, Unavailable, true, "The conversation store cannot be reached at the moment.";
    /// The service cannot do it now.
    Unavailable = "unavailable", 503, Unavailable, true, "The service is not available at the moment.";
    /// It took too long; whether it was done is not known.
    Timeout = "timeout", 504, DeadlineExceeded, true, "The request took too long.";
    /// A fault of the service itself.
    Internal = "internal", 500, Internal, false, "Something went wrong on the server.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A fault on its way out: everything in it may be shown to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message} (error_id {error_id})")]
pub struct Failure {
    /// What went wrong.
    pub code: ErrorCode,
    /// Safe text; by default the code's own.
    pub message: String,
    /// The request field at fault.
    pub field: Option<String>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// Finds the log line.
    pub error_id: String,
}

impl Failure {
    /// A fault with the code's own text.
    pub fn new(code: ErrorCode) -> Self {
        Self::with_message(code, code.text())
    }

    /// A fault with its own text, which must be safe to show.
    pub fn with_message(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            retry_after: None,
            error_id: Uuid::now_v7().simple().to_string(),
        }
    }

    /// A request that does not fit the protocol, naming the field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::with_message(ErrorCode::InvalidMessage, message) }
    }

    /// A field over its size limit; the message says the limit.
    pub fn too_large(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::with_message(ErrorCode::TooLarge, message) }
    }

    /// Adds a hint when to try again.
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
