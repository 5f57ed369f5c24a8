//! The settings that can be changed without a restart: the models with their prompts, prices and limits, the sizes clients must
//! keep to, and what users may use. All of them change at once; a caller that needs several takes one snapshot.

use std::sync::Arc;

use tokio::sync::watch;

use crate::ledger::Allowance;
use crate::llm::catalog::Catalog;

/// Sizes a client must keep to.
#[derive(Debug, Clone, Copy)]
pub struct ChatLimits {
    /// Characters of one message.
    pub max_content_chars: usize,
    /// Characters of a session's name.
    pub max_name_chars: usize,
    /// Characters of the reason of a help request.
    pub max_reason_chars: usize,
    /// Entries that opening a session replays.
    pub replay_entries: u64,
    /// Sessions that one connection may have open.
    pub open_sessions: usize,
}

/// One state of all these settings.
pub struct Tunables {
    /// The models.
    pub catalog: Catalog,
    /// Sizes a client must keep to.
    pub limits: ChatLimits,
    /// Connections one user may hold.
    pub connections_per_user: usize,
    /// What one user may use on one day.
    pub allowance: Allowance,
    /// The model that names sessions. `None`: sessions keep the name made from their first message.
    pub naming_model: Option<String>,
}

/// The settings in force.
pub struct LiveConfig(watch::Sender<Arc<Tunables>>);

impl LiveConfig {
    /// Starts with these settings.
    pub fn new(tunables: Tunables) -> Self {
        Self(watch::Sender::new(Arc::new(tunables)))
    }

    /// The settings in force now. A caller that keeps them does not see later changes.
    pub fn get(&self) -> Arc<Tunables> {
        Arc::clone(&self.0.borrow())
    }

    /// Puts other settings in force.
    pub fn replace(&self, tunables: Tunables) {
        self.0.send_replace(Arc::new(tunables));
    }

    /// Reports when other settings are in force.
    pub fn changes(&self) -> watch::Receiver<Arc<Tunables>> {
        self.0.subscribe()
    }
}
