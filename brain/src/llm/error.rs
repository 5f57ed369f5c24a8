//! How calls fail: each kind with one rule for trying again, one for the endpoint, one code for the client.

use std::time::Duration;

use chatbox_shared::failure::ErrorCode;

use super::endpoint::Verdict;

/// A failed call. `Display` and `detail` are for the log only: they may quote the provider.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{class:?}{}: {detail}", status.map(|status| format!(" (HTTP {status})")).unwrap_or_default())]
pub struct ProviderError {
    /// What kind of failure.
    pub class: ErrorClass,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// The provider's own wish when to try again.
    pub retry_after: Option<Duration>,
    /// The provider's explicit word on retrying (`x-should-retry`), which overrides the class.
    pub should_retry: Option<bool>,
    /// What to change before the same call is made once more, at once.
    pub remedy: Option<Remedy>,
    /// Nothing of the request has reached the provider.
    pub unsent: bool,
    /// For the log: a short prefix of what the provider said. Never contains a key.
    pub detail: String,
}

/// A change that may make a refused call succeed. Each is tried once for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// The provider has lost its conversation, or it is full: begin a new one.
    NewConversation,
    /// The model takes no temperature: leave it out.
    WithoutSampling,
    /// The prompt was too long: send less of the history.
    LessHistory,
}

/// Kinds of failure, each with one rule for retrying and one code for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The connection could not be made, or broke before the answer's head.
    Connect,
    /// A time limit of ours passed, or the provider says it timed out.
    Timeout,
    /// Too many requests now.
    RateLimited,
    /// The provider is overloaded.
    Overloaded,
    /// The provider failed in itself (5xx).
    Server,
    /// The stream ended before the answer did.
    Truncated,
    /// The stream is not what the protocol says.
    Protocol,
    /// Wrong key, no permission.
    Auth,
    /// Out of money or quota.
    Quota,
    /// The provider does not take this request.
    Rejected,
    /// The prompt is longer than the model can take.
    ContextLength,
    /// The model or the conversation does not exist.
    NotFound,
    /// Refused by the provider's content rules.
    ContentFiltered,
    /// Not called: the endpoint has failed too often.
    CircuitOpen,
    /// Not called: too many wait for the endpoint.
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

    /// May another model do what this one could not? What content rules withheld is not asked elsewhere.
    pub fn falls_back(self) -> bool {
        self != Self::ContentFiltered
    }

    /// What it says about the endpoint.
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

    /// May the same call succeed when made again?
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::Timeout | Self::RateLimited | Self::Overloaded | Self::Server | Self::Truncated
        )
    }

    /// What the client is told.
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

    /// What to change before the call is made once more.
    pub fn remedy(&self) -> Option<Remedy> {
        self.remedy.or((self.class == ErrorClass::ContextLength).then_some(Remedy::LessHistory))
    }

    /// What it says about the endpoint. A request that was refused for what it is, or a fault the provider has by itself
    /// found to be final, says nothing.
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
