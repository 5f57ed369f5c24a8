//! Keeps the link to one address up: connects, serves, waits, and connects again.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{self, ConnectSettings, LinkError};
use crate::endpoint::Address;
use crate::links::Links;

/// The bound of the first wait before connecting again. It doubles with every failure up to [`MAX_WAIT`].
const MIN_WAIT: Duration = Duration::from_millis(50);
const MAX_WAIT: Duration = Duration::from_secs(2);
/// A link that lived this long resets the count of failures.
const STABLE: Duration = Duration::from_secs(10);

/// Keeps the link to one address.
pub(crate) struct LinkSupervisor {
    pub(crate) address: Address,
    pub(crate) settings: ConnectSettings,
    pub(crate) links: Links,
    /// Cancelled when the address is no longer resolved: the link drains, and is not connected again.
    pub(crate) unlisted: CancellationToken,
    /// Cancelled when all links must end.
    pub(crate) end: CancellationToken,
}

impl LinkSupervisor {
    /// Runs until `end` is cancelled, or until the link ends after `unlisted` was cancelled.
    pub(crate) async fn run(self) {
        let mut failures = 0_u32;
        while !self.end.is_cancelled() && !self.unlisted.is_cancelled() {
            let began = Instant::now();
            let outcome = tokio::select! {
                outcome = client::run(self.address, &self.settings, &self.links, &self.unlisted, &self.end) => outcome,
                () = self.end.cancelled() => return,
            };
            // A brain whose link broke is likely to come back at once. A brain that drained is not: it would send its
            // new connections away again.
            if began.elapsed() >= STABLE || matches!(outcome, Err(LinkError::Lost(_))) {
                failures = 0;
            }
            self.report(outcome, failures);
            failures = failures.saturating_add(1);
            tokio::select! {
                () = tokio::time::sleep(back_off(failures)) => {}
                () = self.end.cancelled() => {}
                () = self.unlisted.cancelled() => {}
            }
        }
    }

    /// Logs why there is no link. Only the first of several failed attempts is a warning; a wrong version is always an
    /// error, because an operator must act.
    fn report(&self, outcome: Result<(), LinkError>, failures: u32) {
        let address = self.address;
        match outcome {
            Ok(()) => tracing::info!(%address, "link has ended"),
            Err(error @ LinkError::Lost(_)) => tracing::warn!(%address, %error, "link lost"),
            Err(error @ LinkError::Version { .. }) => {
                tracing::error!(%address, %error, "brain rejected: both sides must use the same link version");
            }
            Err(error) if failures == 0 => tracing::warn!(%address, %error, "cannot reach brain; will retry"),
            Err(error) => tracing::debug!(%address, %error, failures, "cannot reach brain"),
        }
    }
}

/// A random wait below a bound that doubles with every failure, so that processes do not reconnect in step.
fn back_off(failures: u32) -> Duration {
    let bound = MIN_WAIT.saturating_mul(1 << failures.min(10)).min(MAX_WAIT);
    bound.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound() {
        for (failures, bound) in [(1, 100), (2, 200), (5, 1_600), (6, 2_000), (u32::MAX, 2_000)] {
            let (wait, bound) = (back_off(failures), Duration::from_millis(bound));
            assert!((bound / 2..bound).contains(&wait), "{failures}: {wait:?}");
        }
    }
}
