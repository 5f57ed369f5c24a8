//! How calls fail. Each class decides the retry, the effect on the circuit breaker and the error code for clients.

use std::time::Duration;

use chatbox_shared::failure::ErrorCode;

use super::endpoint::Verdict;

/// A failed call. `Display` and `detail` may quote the provider, so they are for the log only.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{class:?}{}: {detail}", status.map(|status| format!(" (HTTP {status})")).unwrap_or_default())]
pub struct ProviderError {
    /// The class of the failure.
    pub class: ErrorClass,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// How long the provider asks to wait (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// The provider's `x-should-retry`, which overrides the class.
    pub should_retry: Option<bool>,
    /// What to change before the call is repeated, without a wait.
    pub remedy: Option<Remedy>,
    /// No part of the request reached the provider.
    pub unsent: bool,
    /// For the log: the beginning of the provider's message. Never contains a key.
    pub detail: String,
}

/// A change after which a rejected call may succeed. Each is tried at most once per answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Start a new conversation: the provider lost the old one, or it is full.
    NewConversation,
    /// Leave the sampling fields out: the model accepts none.
    WithoutSampling,
    /// Send less history: the prompt was too long.
    LessHistory,
}

/// The classes of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The connection failed before the response head.
    Connect,
    /// A time limit of chatbox passed, or the provider reported a timeout.
    Timeout,
    /// The provider limits the request rate.
    RateLimited,
    /// The provider is overloaded.
    Overloaded,
    /// The provider failed (5xx).
    Server,
    /// The stream ended before the answer did.
    Truncated,
    /// The response violates the protocol.
    Protocol,
    /// The key is wrong or lacks a permission.
    Auth,
    /// The provider account is out of credit or quota.
    Quota,
    /// The provider rejects this request.
    Rejected,
    /// The prompt exceeds the context window.
    ContextLength,
    /// The model or the conversation does not exist.
    NotFound,
    /// Withheld by the provider's content rules.
    ContentFiltered,
    /// Not called: the endpoint's circuit breaker is open.
    CircuitOpen,
    /// Not called: the endpoint's queue is full.
    QueueFull,
}

impl ErrorClass {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Timeout,
        Self::RateLimited,
        Self::Overloaded,
        Self::Server,
        Self::Truncated,
        Self::Protocol,
        Self::Auth,
        Self::Quota,
        Self::Rejected,
        Self::ContextLength,
        Self::NotFound,
        Self::ContentFiltered,
        Self::CircuitOpen,
        Self::QueueFull,
    ];

    /// The name in the ledger and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Server => "server",
            Self::Truncated => "truncated",
            Self::Protocol => "protocol",
            Self::Auth => "auth",
            Self::Quota => "quota",
            Self::Rejected => "rejected",
            Self::ContextLength => "context_length",
            Self::NotFound => "not_found",
            Self::ContentFiltered => "content_filtered",
            Self::CircuitOpen => "circuit_open",
            Self::QueueFull => "queue_full",
        }
    }

    /// Whether a fallback model is tried. Content that one provider withheld is not requested from another.
    pub fn falls_back(self) -> bool {
        self != Self::ContentFiltered
    }

    /// What this failure says about the endpoint's health.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Connect | Self::Timeout | Self::Overloaded | Self::Server | Self::Truncated | Self::Protocol => {
                Verdict::Failed
            }
            Self::RateLimited
            | Self::Auth
            | Self::Quota
            | Self::Rejected
            | Self::ContextLength
            | Self::NotFound
            | Self::ContentFiltered
            | Self::CircuitOpen
            | Self::QueueFull => Verdict::Neutral,
        }
    }

    /// Whether the same call may succeed later.
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::Timeout | Self::RateLimited | Self::Overloaded | Self::Server | Self::Truncated
        )
    }

    /// The error code for clients.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Connect
            | Self::RateLimited
            | Self::Overloaded
            | Self::Server
            | Self::Truncated
            | Self::Protocol
            | Self::CircuitOpen
            | Self::QueueFull => ErrorCode::ProviderUnavailable,
            Self::Timeout => ErrorCode::ProviderTimeout,
            Self::Auth | Self::Quota | Self::Rejected | Self::ContextLength => ErrorCode::ProviderRejected,
            Self::NotFound => ErrorCode::ModelUnavailable,
            Self::ContentFiltered => ErrorCode::ContentFiltered,
        }
    }
}

impl ProviderError {
    /// A failure without any HTTP answer.
    pub fn new(class: ErrorClass, detail: impl Into<String>) -> Self {
        Self {
            class,
            status: None,
            retry_after: None,
            should_retry: None,
            remedy: None,
            unsent: false,
            detail: detail.into(),
        }
    }

    /// What to change before the call is repeated.
    pub fn remedy(&self) -> Option<Remedy> {
        self.remedy.or((self.class == ErrorClass::ContextLength).then_some(Remedy::LessHistory))
    }

    /// What this failure says about the endpoint's health. A rejected request, or an error the provider declared final,
    /// says nothing.
    pub fn verdict(&self) -> Verdict {
        let about_request = self.status.is_some_and(|status| (400..500).contains(&status));
        if about_request || self.should_retry == Some(false) { Verdict::Neutral } else { self.class.verdict() }
    }

    /// May the same call succeed when made again?
    pub fn retryable(&self) -> bool {
        self.should_retry.unwrap_or(self.class.retryable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_word_on_retrying_overrides_the_class() {
        let error = ProviderError::new(ErrorClass::Overloaded, "busy");
        assert!(error.retryable());
        assert!(!ProviderError { should_retry: Some(false), ..error.clone() }.retryable());
        assert_eq!(ProviderError { status: Some(503), ..error }.to_string(), "Overloaded (HTTP 503): busy");
    }
}
