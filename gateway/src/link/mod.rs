//! The links to the brains: one multiplexed stream to each. Which brain serves which connection is decided here; what
//! is said is none of this module's business.

mod client;
mod convert;
#[cfg(test)]
pub(crate) mod double;
mod endpoint;
mod pool;
mod reattach;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use chatbox_shared::ids::UserId;
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::proto::{self, GatewayFrame};
use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc};
use tonic::transport::ClientTlsConfig;

use crate::metrics::Metrics;
use crate::roster::Roster;

pub use endpoint::{BadEndpoint, BrainEndpoint};
pub(crate) use reattach::{Speaker, Uplink, Upward};

/// What the links need to know.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// Names this gateway to the brains.
    pub gateway_id: String,
    /// Where brains are.
    pub endpoints: Vec<BrainEndpoint>,
    /// How often names are looked up again.
    pub resolve_interval: Duration,
    /// How long a connection, and then the greeting, may take.
    pub connect_timeout: Duration,
    /// TLS towards the brains; none: plaintext.
    pub tls: Option<ClientTlsConfig>,
}

/// What a brain said about itself and what its clients may do.
#[derive(Debug, Clone, PartialEq)]
pub struct BrainInfo {
    /// What can answer.
    pub models: Vec<proto::Model>,
    /// What answers where nothing is chosen.
    pub default_model: String,
    /// Most characters of a message.
    pub max_content_chars: u32,
    /// Entries replayed at most.
    pub replay_entries: u32,
}

/// As long as no brain has said anything: no models, and the sizes a brain has by default.
impl Default for BrainInfo {
    fn default() -> Self {
        Self { models: Vec::new(), default_model: String::new(), max_content_chars: 32_000, replay_entries: 500 }
    }
}

/// Every link. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Links(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The links new connections may use. Changed before the roster is told, so that whoever looks after being told
    /// sees the change.
    ready: RwLock<Vec<Arc<Link>>>,
    /// What the brain that spoke last said.
    info: RwLock<Arc<BrainInfo>>,
    /// The last number given to a link.
    last_link: AtomicU64,
    roster: Arc<Roster>,
    metrics: Metrics,
}

impl Links {
    /// Starts looking for brains and keeps a link to each.
    pub fn start(settings: LinkSettings, roster: Arc<Roster>, lifecycle: &Lifecycle, metrics: Metrics) -> Self {
        let links = Self(Arc::new(Shared {
            ready: RwLock::default(),
            info: RwLock::default(),
            last_link: AtomicU64::new(0),
            roster,
            metrics,
        }));
        lifecycle.critical("links", pool::run(settings, links.clone(), lifecycle.clone()));
        links
    }

    /// Can any brain be reached?
    pub fn any_ready(&self) -> bool {
        !self.0.ready.read().is_empty()
    }

    /// How many brains can be reached.
    pub fn ready(&self) -> usize {
        self.0.ready.read().len()
    }

    /// What the brains say about themselves; the last known where none can be reached.
    pub fn info(&self) -> Arc<BrainInfo> {
        Arc::clone(&self.0.info.read())
    }

    /// The link for a user: the same for all of their connections, on every gateway, as long as the brains stay the
    /// same, and for all others when one brain comes or goes (rendezvous hashing).
    pub(crate) fn choose(&self, user: &UserId) -> Option<Arc<Link>> {
        let ready = self.0.ready.read();
        let usable = ready.iter().filter(|link| link.is(LinkState::Ready));
        usable.max_by_key(|link| weight(user.as_str(), &link.brain)).map(Arc::clone)
    }

    fn add(&self, link: Arc<Link>) {
        self.0.ready.write().push(link);
        self.changed();
    }

    fn remove(&self, link: &Link, state: LinkState) {
        link.state.store(state as u8, Ordering::Release);
        self.0.ready.write().retain(|ready| ready.id != link.id);
        self.changed();
    }

    /// Lets the connections without a good link look again.
    fn changed(&self) {
        let ready: Vec<u64> = self.0.ready.read().iter().map(|link| link.id).collect();
        self.0.metrics.links_up.set(i64::try_from(ready.len()).unwrap_or(i64::MAX));
        self.0.roster.relink_unless(|link| ready.contains(&link));
    }
}

/// How much this brain wants this user; the highest of all brains has them.
fn weight(user: &str, brain: &str) -> u64 {
    // FNV-1a, then a finalizer that spreads the last bytes over all bits. The same in every process and version.
    let hash = user
        .bytes()
        .chain([0xff])
        .chain(brain.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// How far a link has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum LinkState {
    /// Takes connections.
    Ready,
    /// The brain stops soon; its connections move away.
    Draining,
    /// The stream is over.
    Lost,
}

/// One stream to one brain, from its greeting to its end. A brain that comes back is another link.
#[derive(Debug)]
pub(crate) struct Link {
    /// Never used twice, never 0.
    id: u64,
    /// The brain's own name.
    brain: Box<str>,
    /// Bounded: who has to wait for room reads nothing more from its socket meanwhile.
    sender: mpsc::Sender<GatewayFrame>,
    state: AtomicU8,
    /// Connections that use this link.
    users: AtomicUsize,
    /// Told when the last of them has left.
    unused: Notify,
}

impl Link {
    fn is(&self, state: LinkState) -> bool {
        self.state.load(Ordering::Acquire) == state as u8
    }

    fn enter(&self) {
        self.users.fetch_add(1, Ordering::AcqRel);
    }

    fn leave(&self) {
        if self.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.unused.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_spread_over_the_brains_and_move_only_when_they_must() {
        let brains = ["a", "b", "c"];
        let choose = |user: &str, brains: &[&'static str]| {
            brains.iter().copied().max_by_key(|brain| weight(user, brain)).expect("a brain")
        };
        let users: Vec<String> = (0..3000).map(|n| format!("user-{n}")).collect();
        for brain in brains {
            let share = users.iter().filter(|user| choose(user, &brains) == brain).count();
            assert!((850..1150).contains(&share), "{brain} has {share}");
        }
        for user in &users {
            let before = choose(user, &brains);
            if before != "c" {
                assert_eq!(choose(user, &["a", "b"]), before);
            }
        }
    }
}
