//! What all links of this brain share.

use std::sync::Arc;

use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::proto::{self, LINK_VERSION};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connections::Connections;
use crate::metrics::Metrics;
use crate::service::context::Context;

/// What every link needs.
pub struct LinkParts {
    /// This brain's name.
    pub brain_id: String,
    /// What commands work with.
    pub context: Context,
    /// All connections by user.
    pub connections: Connections,
    /// Whether the store is prepared. Without its unique indexes it would store messages twice.
    pub store_prepared: watch::Receiver<bool>,
    /// Tasks, drain and stop.
    pub lifecycle: Lifecycle,
    /// Cancelled when gateways must move their connections to other brains: during a drain, once no answer grows here any more,
    /// so that no client is moved while it reads a growing answer.
    pub leave: CancellationToken,
    /// Cancelled at the end of a drain, when the links that are left are ended.
    pub detach: CancellationToken,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

impl LinkParts {
    /// The frame that tells a gateway the models and sizes in force.
    pub(super) fn welcome(&self) -> proto::Welcome {
        let tunables = self.context.tunables();
        let (catalog, limits) = (&tunables.catalog, &tunables.limits);
        let models = catalog.list().iter();
        proto::Welcome {
            brain_id: self.brain_id.clone(),
            link_version: LINK_VERSION,
            models: models.map(|model| proto::Model { id: model.id.clone(), name: model.name.clone() }).collect(),
            default_model_id: catalog.default_model().id.clone(),
            max_content_chars: u32::try_from(limits.max_content_chars).unwrap_or(u32::MAX),
            replay_entries: u32::try_from(limits.replay_entries).unwrap_or(u32::MAX),
        }
    }
}
