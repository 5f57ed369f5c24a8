//! The registry of links: which brains are ready, and which of them is the home of a user.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chatbox_shared::ids::UserId;
use chatbox_shared::proto::{self, GatewayFrame};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::events::LinkEvents;
use crate::link::{Link, LinkState};
use crate::metrics::LinkMetrics;
use crate::rendezvous;

/// What a brain said about itself: models, and limits of its clients.
#[derive(Debug, Clone, PartialEq)]
pub struct BrainInfo {
    /// The models that a client may select.
    pub models: Vec<proto::Model>,
    /// The id of the model of a session for which none was selected.
    pub default_model: String,
    /// Longest message, in characters.
    pub max_content_chars: u32,
    /// Largest number of entries that an open replays.
    pub replay_entries: u32,
}

/// The values before the first brain was reached: no models, and a brain's default limits.
impl Default for BrainInfo {
    fn default() -> Self {
        Self { models: Vec::new(), default_model: String::new(), max_content_chars: 32_000, replay_entries: 500 }
    }
}

impl From<proto::Welcome> for BrainInfo {
    fn from(welcome: proto::Welcome) -> Self {
        Self {
            models: welcome.models,
            default_model: welcome.default_model_id,
            max_content_chars: welcome.max_content_chars,
            replay_entries: welcome.replay_entries,
        }
    }
}

/// The links of this process. Clones share one registry.
#[derive(Clone)]
pub struct Links(Arc<Shared>);

struct Shared {
    /// The links that new connections may use. Changed before [`LinkEvents::links_changed`] is called, so that a
    /// connection that chooses again after the call sees the change.
    ready: RwLock<Vec<Arc<Link>>>,
    /// From the most recent `Welcome` of any brain.
    info: RwLock<Arc<BrainInfo>>,
    /// The id of the newest link.
    last_id: AtomicU64,
    events: Arc<dyn LinkEvents>,
    metrics: LinkMetrics,
}

impl Links {
    /// A registry without links, which reports to `events`.
    pub(crate) fn new(events: Arc<dyn LinkEvents>, metrics: LinkMetrics) -> Self {
        Self(Arc::new(Shared {
            ready: RwLock::default(),
            info: RwLock::default(),
            last_id: AtomicU64::new(0),
            events,
            metrics,
        }))
    }

    /// Whether at least one brain can be reached.
    pub fn any_ready(&self) -> bool {
        !self.0.ready.read().is_empty()
    }

    /// The number of ready links.
    pub fn ready(&self) -> usize {
        self.0.ready.read().len()
    }

    /// What the brains said about themselves. Keeps its last value while no brain can be reached.
    pub fn info(&self) -> Arc<BrainInfo> {
        Arc::clone(&self.0.info.read())
    }

    /// The link to the home of a user (see [`rendezvous`]); `None` if no brain can be reached.
    pub(crate) fn choose(&self, user: &UserId) -> Option<Arc<Link>> {
        let ready = self.0.ready.read();
        let usable: Vec<&Arc<Link>> = ready.iter().filter(|link| link.is(LinkState::Ready)).collect();
        let home = rendezvous::home(user.as_str(), usable.iter().map(|link| &*link.brain))?;
        // Two addresses of one brain give two links of the same name; the newer one is used.
        usable.into_iter().rfind(|link| *link.brain == *home).map(Arc::clone)
    }

    /// Adds a link to a brain that has just greeted.
    pub(crate) fn add(&self, welcome: proto::Welcome, sender: mpsc::Sender<GatewayFrame>) -> Arc<Link> {
        let id = self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let link = Arc::new(Link::new(id, &welcome.brain_id, sender));
        self.update_info(welcome);
        self.0.ready.write().push(Arc::clone(&link));
        self.changed();
        link
    }

    /// Takes a link, which is now in `state`, out of the ready links.
    pub(crate) fn remove(&self, link: &Link, state: LinkState) {
        link.set(state);
        self.0.ready.write().retain(|ready| ready.id != link.id);
        self.changed();
    }

    /// Stores what a brain says about itself.
    pub(crate) fn update_info(&self, welcome: proto::Welcome) {
        *self.0.info.write() = Arc::new(welcome.into());
    }

    /// The receiver of the brains' frames.
    pub(crate) fn events(&self) -> &dyn LinkEvents {
        &*self.0.events
    }

    /// The metrics of the links.
    pub(crate) fn metrics(&self) -> &LinkMetrics {
        &self.0.metrics
    }

    fn changed(&self) {
        let ready: Vec<u64> = self.0.ready.read().iter().map(|link| link.id).collect();
        self.0.metrics.up.set(i64::try_from(ready.len()).unwrap_or(i64::MAX));
        self.0.events.links_changed(&ready);
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("ready", &*self.0.ready.read()).finish_non_exhaustive()
    }
}
