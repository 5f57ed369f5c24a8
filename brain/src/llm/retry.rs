//! When a failed call is retried, and after which wait.
//!
//! A call is retried only while the reader has seen no text of its answer. Each try has its own limit until the first
//! text; the total limit spans all tries and the waits between them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ProviderError;

/// The longest first wait where the provider names none. Doubles with each retry.
const BACKOFF: Duration = Duration::from_millis(500);

/// The longest wait where the provider names none.
const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// The time limits and retries of calls.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Limit of each try from the request to the first text, and of the wait for a slot at the endpoint.
    pub first_token: Duration,
    /// Limit of the whole answer with all retries and fallbacks.
    pub total: Duration,
    /// Retries after the first try.
    pub max_retries: u32,
    /// A call told to wait longer than this is not retried.
    pub max_retry_after: Duration,
    /// The randomness of the waits.
    pub jitter: Jitter,
}

/// A source of random numbers in 0..1.
#[derive(Clone)]
pub struct Jitter(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Jitter {
    /// True randomness.
    pub fn random() -> Self {
        Self(Arc::new(rand::random::<f64>))
    }

    /// Always this number, for tests.
    pub fn fixed(number: f64) -> Self {
        Self(Arc::new(move || number))
    }
}

impl fmt::Debug for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jitter")
    }
}

impl Policy {
    /// The wait before the next try; `None` for no further try. `failed` tries failed before this one.
    ///
    /// Full jitter: callers that failed together do not retry together. A wait the provider asked for is a minimum, to
    /// which a small jitter is added.
    pub(super) fn wait(&self, error: &ProviderError, failed: u32) -> Option<Duration> {
        if !error.retryable() || failed >= self.max_retries {
            return None;
        }
        let jitter = (self.jitter.0)().clamp(0.0, 1.0);
        match error.retry_after {
            Some(asked) if asked > self.max_retry_after => None,
            Some(asked) => Some(asked + BACKOFF.mul_f64(jitter)),
            None => Some(BACKOFF.saturating_mul(1 << failed.min(16)).min(MAX_BACKOFF).mul_f64(jitter)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::ErrorClass;

    fn policy(jitter: f64) -> Policy {
        Policy {
            first_token: Duration::from_secs(10),
            total: Duration::from_secs(60),
            max_retries: 6,
            max_retry_after: Duration::from_secs(20),
            jitter: Jitter::fixed(jitter),
        }
    }

    fn error(class: ErrorClass) -> ProviderError {
        ProviderError::new(class, "scripted")
    }

    #[test]
    fn waits_double_up_to_a_cap_and_tries_are_counted() {
        let waits: Vec<_> = (0..8).map(|failed| policy(1.0).wait(&error(ErrorClass::Server), failed)).collect();
        let expected = [500, 1000, 2000, 4000, 8000, 8000].map(|millis| Some(Duration::from_millis(millis)));
        assert_eq!(waits[..6], expected);
        assert_eq!(waits[6..], [None, None]);
        assert_eq!(policy(0.0).wait(&error(ErrorClass::Server), 3), Some(Duration::ZERO), "jitter is full");
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        for class in ErrorClass::ALL {
            let retried = policy(1.0).wait(&error(class), 0).is_some();
            let expected = matches!(
                class,
                ErrorClass::Connect
                    | ErrorClass::Timeout
                    | ErrorClass::RateLimited
                    | ErrorClass::Overloaded
                    | ErrorClass::Server
                    | ErrorClass::Truncated
            );
            assert_eq!(retried, expected, "{class:?}");
        }
        let never = ProviderError { should_retry: Some(false), ..error(ErrorClass::Server) };
        assert_eq!(policy(1.0).wait(&never, 0), None);
    }

    #[test]
    fn a_wait_asked_for_is_a_minimum_up_to_the_cap() {
        let asked = |seconds| ProviderError {
            retry_after: Some(Duration::from_secs(seconds)),
            ..error(ErrorClass::RateLimited)
        };
        assert_eq!(policy(1.0).wait(&asked(20), 0), Some(Duration::from_millis(20_500)));
        assert_eq!(policy(0.0).wait(&asked(20), 0), Some(Duration::from_secs(20)));
        assert_eq!(policy(1.0).wait(&asked(21), 0), None);
    }
}
