//! What all commands work with.

use std::sync::Arc;

use crate::session::registry::Sessions;
use crate::tunables::{LiveConfig, Tunables};
use crate::turn::turns::Turns;

/// The parts of the brain that commands use. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The sessions in use.
    pub sessions: Arc<Sessions>,
    /// The answers being generated.
    pub turns: Arc<Turns>,
    /// The settings that can change.
    pub live_config: Arc<LiveConfig>,
}

impl Context {
    /// The settings in force now.
    pub fn tunables(&self) -> Arc<Tunables> {
        self.live_config.get()
    }
}
