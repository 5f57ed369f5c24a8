//! What all turns of this brain share. A turn is a message that needs an answer, and that answer. The answer's row in the store
//! is its lease, its journal and its place in the log at once: the brain that inserted the row generates the answer, as long as
//! the row has that brain's fence.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::workers::Workers;
use crate::metrics::Metrics;
use crate::session::registry::Sessions;
use crate::store::Store;
use crate::tunables::LiveConfig;

/// How many answers are taken over at once. Each takes a few operations of the store.
const ADOPTIONS: usize = 32;

/// How answers are generated.
#[derive(Debug, Clone)]
pub struct TurnSettings {
    /// This brain's name in the rows it owns.
    pub owner: String,
    /// How long a row is owned without a renewal.
    pub lease: Duration,
    /// A growing answer is saved this often …
    pub checkpoint: Duration,
    /// … or earlier, so that at most this many bytes are shown unsaved.
    pub checkpoint_bytes: usize,
    /// After this many owners an answer is given up instead of being taken over again.
    pub max_attempts: u32,
    /// How often expired leases and forgotten messages are looked for.
    pub sweep_interval: Duration,
}

/// The turns of this brain, and the parts they work with.
pub struct Turns {
    pub(super) sessions: Arc<Sessions>,
    pub(super) live_config: Arc<LiveConfig>,
    pub(super) settings: TurnSettings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) workers: Workers,
    /// Cancelled to hand running answers over to other brains.
    pub(super) hand_over: CancellationToken,
    /// Limits how many answers are taken over at once.
    pub(super) adopting: Semaphore,
}

impl Turns {
    /// No turn runs yet.
    pub fn new(
        sessions: Arc<Sessions>,
        live_config: Arc<LiveConfig>,
        settings: TurnSettings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (workers, hand_over) = (Workers::default(), CancellationToken::new());
        let adopting = Semaphore::new(ADOPTIONS);
        Self { sessions, live_config, settings, metrics, workers, hand_over, adopting }
    }

    pub(super) fn store(&self) -> &dyn Store {
        self.sessions.store.as_ref()
    }

    /// Gives up running answers, so that other brains take them over at once. No further answer begins.
    pub fn hand_over(&self) {
        self.hand_over.cancel();
    }

    /// How many sessions have a worker here.
    pub fn count(&self) -> usize {
        self.workers.count()
    }
}
