//! The section `[provider]`: limits and retries, for all models that do not override them.

use std::time::Duration;

use serde::Deserialize;

use super::error::{SettingError, SettingErrors};
use crate::llm::endpoint::{BreakerSettings, EndpointSettings, QueueSettings};
use crate::llm::retry::{Jitter, Policy};

/// The section `[provider]`: limits and retries of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// Limit for establishing the connection.
    pub connect_timeout_ms: u64,
    /// Limit from the request to the first text.
    pub first_token_timeout_ms: u64,
    /// Limit between two reads of a stream.
    pub idle_timeout_ms: u64,
    /// Limit for one answer with all its calls.
    pub total_timeout_ms: u64,
    /// Retries of a call that failed before its first text.
    pub max_retries: u32,
    /// The longest `Retry-After` that is waited for.
    pub max_retry_after_ms: u64,
    /// Concurrent calls of one endpoint.
    pub max_concurrent: usize,
    /// Calls that may wait for one endpoint.
    pub max_queued: usize,
    /// Consecutive failures that open an endpoint's circuit breaker.
    pub breaker_failures: u32,
    /// How long the circuit breaker stays open.
    pub breaker_open_ms: u64,
}

/// Valid settings. A model's overrides are checked on top of them, so that each error found belongs to the model.
pub(super) const VALID: ProviderConfig = ProviderConfig {
    connect_timeout_ms: 1,
    first_token_timeout_ms: 1,
    idle_timeout_ms: 1,
    total_timeout_ms: 1,
    max_retries: 0,
    max_retry_after_ms: 0,
    max_concurrent: 1,
    max_queued: 0,
    breaker_failures: 1,
    breaker_open_ms: 1,
};

impl ProviderConfig {
    /// All errors of these settings; keys are relative to the section.
    pub fn validate(&self) -> Vec<SettingError> {
        let mut errors = SettingErrors::default();
        for (key, millis) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("first_token_timeout_ms", self.first_token_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("total_timeout_ms", self.total_timeout_ms),
            ("breaker_open_ms", self.breaker_open_ms),
        ] {
            if !(1..=86_400_000).contains(&millis) {
                errors.add(key, "must be between 1 (a millisecond) and 86400000 (a day)");
            }
        }
        if self.max_retries > 10 {
            errors.add("max_retries", "must be 10 or less");
        }
        if self.max_retry_after_ms > 86_400_000 {
            errors.add("max_retry_after_ms", "must be 86400000 (a day) or less");
        }
        if !(1..=1_000_000).contains(&self.max_concurrent) {
            errors.add("max_concurrent", "must be between 1 and 1000000");
        }
        if self.max_queued > 1_000_000 {
            errors.add("max_queued", "must be 1000000 or less");
        }
        if self.breaker_failures == 0 {
            errors.add("breaker_failures", "must be at least 1");
        }
        errors.0
    }

    /// The limits of an endpoint.
    pub fn endpoint(&self) -> EndpointSettings {
        EndpointSettings {
            breaker: BreakerSettings {
                failures: self.breaker_failures,
                open_for: Duration::from_millis(self.breaker_open_ms),
            },
            queue: QueueSettings { max_concurrent: self.max_concurrent, max_queued: self.max_queued },
        }
    }

    /// The time limits and retries of a call.
    pub fn policy(&self) -> Policy {
        Policy {
            first_token: Duration::from_millis(self.first_token_timeout_ms),
            total: Duration::from_millis(self.total_timeout_ms),
            max_retries: self.max_retries,
            max_retry_after: Duration::from_millis(self.max_retry_after_ms),
            jitter: Jitter::random(),
        }
    }
}
