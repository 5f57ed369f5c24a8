//! Finds the brains and keeps one link to each: names are looked up again and again, and each address has a task that
//! connects, and connects again when the link is lost.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use chatbox_shared::lifecycle::Lifecycle;
use rand::RngExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{self, LinkError};
use super::endpoint::Address;
use super::{LinkSettings, Links};
use crate::connection::CloseCode;

/// The first wait before connecting again; doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// A link that held this long was a good one: what failed before it does not count any more.
const STABLE: Duration = Duration::from_secs(10);

/// How long connections that are closed at once have to tell their brains.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs until the process has drained, then ends every link: connections that are being closed still need theirs.
pub(super) async fn run(settings: LinkSettings, links: Links, lifecycle: Lifecycle) {
    let end = CancellationToken::new();
    tokio::select! {
        () = keep_resolving(&settings, &links, &lifecycle, &end) => {}
        () = drained(&links, &lifecycle) => {}
    }
    end.cancel();
}

async fn drained(links: &Links, lifecycle: &Lifecycle) {
    lifecycle.draining().cancelled().await;
    tokio::select! {
        () = links.0.roster.emptied() => {}
        () = lifecycle.stopping().cancelled() => {
            links.0.roster.close_all(CloseCode::GOING_AWAY);
            drop(tokio::time::timeout(LAST_WORDS, links.0.roster.emptied()).await);
        }
    }
}

async fn keep_resolving(settings: &LinkSettings, links: &Links, lifecycle: &Lifecycle, end: &CancellationToken) {
    let mut known: HashMap<Address, CancellationToken> = HashMap::new();
    loop {
        if let Some(found) = resolve(settings).await {
            known.retain(|address, listed| {
                let keep = found.contains(address);
                if !keep {
                    tracing::info!(%address, "a brain's address is no longer listed");
                    listed.cancel();
                }
                keep
            });
            for address in found {
                known.entry(address).or_insert_with(|| {
                    let unlisted = CancellationToken::new();
                    let keeper = Keeper {
                        address,
                        settings: settings.clone(),
                        links: links.clone(),
                        unlisted: unlisted.clone(),
                        end: end.clone(),
                    };
                    lifecycle.spawn(keeper.run());
                    unlisted
                });
            }
            links.0.metrics.links_wanted.set(i64::try_from(known.len()).unwrap_or(i64::MAX));
        }
        tokio::time::sleep(settings.resolve_interval).await;
    }
}

/// Every address there is now. `None` where a name could not be looked up: then nothing is given up.
async fn resolve(settings: &LinkSettings) -> Option<BTreeSet<Address>> {
    let mut found = BTreeSet::new();
    for endpoint in &settings.endpoints {
        match tokio::time::timeout(settings.connect_timeout, endpoint.resolve()).await {
            Ok(Ok(addresses)) => found.extend(addresses),
            Ok(Err(error)) => {
                tracing::warn!(?endpoint, %error, "a brain's address cannot be looked up");
                return None;
            }
            Err(_) => {
                tracing::warn!(?endpoint, "looking a brain's address up takes too long");
                return None;
            }
        }
    }
    Some(found)
}

/// Keeps the link to one address.
struct Keeper {
    address: Address,
    settings: LinkSettings,
    links: Links,
    /// The address is no longer listed: the link may end, but is not made again.
    unlisted: CancellationToken,
    end: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        let mut failures = 0_u32;
        while !self.end.is_cancelled() && !self.unlisted.is_cancelled() {
            let began = Instant::now();
            let outcome = tokio::select! {
                outcome = client::run(self.address, &self.settings, &self.links, &self.end) => outcome,
                () = self.end.cancelled() => return,
            };
            // What was up is likely to come back. A brain that drains has sent everybody away, and would again.
            if began.elapsed() >= STABLE || matches!(outcome, Err(LinkError::Lost(_))) {
                failures = 0;
            }
            self.report(outcome, failures);
            failures = failures.saturating_add(1);
            tokio::select! {
                () = tokio::time::sleep(wait(failures)) => {}
                () = self.end.cancelled() => {}
                () = self.unlisted.cancelled() => {}
            }
        }
    }

    /// Says why there is no link, loudly the first time and whenever an operator must act.
    fn report(&self, outcome: Result<(), LinkError>, failures: u32) {
        let address = self.address;
        match outcome {
            Ok(()) => tracing::info!(%address, "the link to a brain has ended"),
            Err(error @ LinkError::Lost(_)) => tracing::warn!(%address, %error, "a link is lost"),
            Err(error @ LinkError::Version { .. }) => {
                tracing::error!(%address, %error, "a brain is refused: gateway and brain must be of matching versions");
            }
            Err(error) if failures == 0 => tracing::warn!(%address, %error, "a brain cannot be reached; trying again"),
            Err(error) => tracing::debug!(%address, %error, failures, "a brain cannot be reached"),
        }
    }
}

/// A random time up to a bound that doubles with every failure, so that gateways do not come back in step.
fn wait(failures: u32) -> Duration {
    let bound = FIRST_WAIT.saturating_mul(1 << failures.min(10)).min(LONGEST_WAIT);
    bound.mul_f64(rand::rng().random_range(0.5..1.0))
}
