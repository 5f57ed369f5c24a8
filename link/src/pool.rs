//! Resolves the endpoints of the brains again and again, and keeps one supervisor for each address.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::tls::LiveTls;
use tokio_util::sync::CancellationToken;
use tonic::transport::ClientTlsConfig;

use crate::client::ConnectSettings;
use crate::endpoint::{Address, BrainEndpoint};
use crate::events::LinkEvents;
use crate::links::Links;
use crate::metrics::LinkMetrics;
use crate::supervisor::LinkSupervisor;

/// What the links need.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// The name of this process, for the logs of the brains.
    pub name: String,
    /// The endpoints of the brains.
    pub endpoints: Vec<BrainEndpoint>,
    /// The time between two look-ups of the endpoints' names.
    pub resolve_interval: Duration,
    /// The time limit of a look-up, of a connection, and of a greeting.
    pub connect_timeout: Duration,
    /// TLS for `https://` endpoints.
    pub tls: Option<LiveTls<ClientTlsConfig>>,
}

/// Starts to keep a link to every brain. The links end when `unused` resolves; it should resolve once the process drains
/// and its last connection has ended, because connections need their link until then.
pub fn start(
    settings: LinkSettings,
    events: Arc<dyn LinkEvents>,
    metrics: LinkMetrics,
    lifecycle: &Lifecycle,
    unused: impl Future<Output = ()> + Send + 'static,
) -> Links {
    let links = Links::new(events, metrics);
    let pool = Pool {
        connect: ConnectSettings { name: settings.name, timeout: settings.connect_timeout, tls: settings.tls },
        endpoints: settings.endpoints,
        resolve_interval: settings.resolve_interval,
        links: links.clone(),
        lifecycle: lifecycle.clone(),
        end: CancellationToken::new(),
    };
    lifecycle.critical("links", pool.run(unused));
    links
}

/// The endpoints and everything a new supervisor needs.
struct Pool {
    connect: ConnectSettings,
    endpoints: Vec<BrainEndpoint>,
    resolve_interval: Duration,
    links: Links,
    lifecycle: Lifecycle,
    /// Ends every link.
    end: CancellationToken,
}

impl Pool {
    async fn run(self, unused: impl Future<Output = ()>) {
        tokio::select! {
            () = self.keep_resolving() => {}
            () = unused => {}
        }
        self.end.cancel();
    }

    async fn keep_resolving(&self) {
        let mut known: HashMap<Address, CancellationToken> = HashMap::new();
        let mut resolved = vec![BTreeSet::new(); self.endpoints.len()];
        loop {
            let found = self.resolve(&mut resolved).await;
            forget_unlisted(&mut known, &found);
            for address in found {
                known.entry(address).or_insert_with(|| self.supervise(address));
            }
            self.links.metrics().wanted.set(i64::try_from(known.len()).unwrap_or(i64::MAX));
            tokio::time::sleep(self.resolve_interval).await;
        }
    }

    /// All current addresses. `resolved` has the last addresses of each endpoint: an endpoint whose look-up fails, or
    /// finds nothing, keeps them.
    async fn resolve(&self, resolved: &mut [BTreeSet<Address>]) -> BTreeSet<Address> {
        for (endpoint, resolved) in self.endpoints.iter().zip(resolved.iter_mut()) {
            match tokio::time::timeout(self.connect.timeout, endpoint.resolve()).await {
                Ok(Ok(found)) if found.is_empty() => tracing::warn!(?endpoint, "the name of a brain has no address"),
                Ok(Ok(found)) => *resolved = found.into_iter().collect(),
                Ok(Err(error)) => tracing::warn!(?endpoint, %error, "cannot resolve the name of a brain"),
                Err(_) => {
                    tracing::warn!(?endpoint, timeout = ?self.connect.timeout, "resolving the name of a brain timed out");
                }
            }
        }
        resolved.iter().flatten().copied().collect()
    }

    /// Starts a supervisor. Returns the token that tells it that its address is no longer listed.
    fn supervise(&self, address: Address) -> CancellationToken {
        let unlisted = CancellationToken::new();
        let supervisor = LinkSupervisor {
            address,
            settings: self.connect.clone(),
            links: self.links.clone(),
            unlisted: unlisted.clone(),
            end: self.end.clone(),
        };
        self.lifecycle.spawn(supervisor.run());
        unlisted
    }
}

fn forget_unlisted(known: &mut HashMap<Address, CancellationToken>, found: &BTreeSet<Address>) {
    known.retain(|address, unlisted| {
        let keep = found.contains(address);
        if !keep {
            tracing::info!(%address, "address of a brain is no longer listed");
            unlisted.cancel();
        }
        keep
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ignore;

    impl LinkEvents for Ignore {
        fn deliver(&self, _: u64, _: chatbox_shared::proto::Deliver) {}

        fn reply(&self, _: u64, _: chatbox_shared::proto::Reply) {}

        fn kick(&self, _: u64, _: chatbox_shared::proto::Kick) {}

        fn links_changed(&self, _: &[u64]) {}
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_keeps_its_addresses_and_leaves_the_others_alone() {
        let endpoint = |text: &str| text.parse::<BrainEndpoint>().expect("endpoint");
        // A label of more than 63 characters fails without a query to a name server.
        let unresolvable = format!("http://{}.example:1", "x".repeat(64));
        let pool = Pool {
            connect: ConnectSettings { name: "gateway-1".into(), timeout: Duration::from_secs(10), tls: None },
            endpoints: vec![endpoint(&unresolvable), endpoint("http://127.0.0.1:2")],
            resolve_interval: Duration::from_secs(60),
            links: Links::new(Arc::new(Ignore), LinkMetrics::default()),
            lifecycle: Lifecycle::new(),
            end: CancellationToken::new(),
        };
        let last = endpoint("http://127.0.0.1:1").resolve().await.expect("address")[0];
        let mut resolved = vec![BTreeSet::from([last]), BTreeSet::new()];
        let found = pool.resolve(&mut resolved).await;
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["http://127.0.0.1:1", "http://127.0.0.1:2"]);
    }
}
