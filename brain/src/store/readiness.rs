//! Is the store ready to be used? It may be away when the brain starts, and a missing index makes it unusable in earnest.

use std::sync::OnceLock;
use std::time::Duration;

use chatbox_shared::lifecycle::Lifecycle;
use parking_lot::Mutex;

use super::{SharedStore, StoreResult};
use crate::session::registry::Sessions;

/// How long to wait before a store that could not be prepared is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Prepares the store, and tells whether it answers.
pub struct Readiness {
    store: SharedStore,
    create_indexes: bool,
    prepared: OnceLock<()>,
    /// Why it is not prepared yet.
    reason: Mutex<String>,
}

impl Readiness {
    /// `create_indexes`: make missing ones, instead of waiting for somebody who does.
    pub fn new(store: SharedStore, create_indexes: bool) -> Self {
        Self { store, create_indexes, prepared: OnceLock::new(), reason: Mutex::new("it is being prepared".into()) }
    }

    /// Tries until the store has all it needs and `sessions` knows its time. `false`: the process drains.
    pub async fn prepare(&self, sessions: &Sessions, lifecycle: &Lifecycle) -> bool {
        loop {
            let reason = match self.try_prepare(sessions).await {
                Ok(missing) if missing.is_empty() => {
                    // Nobody else sets it.
                    let _ = self.prepared.set(());
                    return true;
                }
                Ok(missing) => format!("missing indexes: {}; run `chatbox-brain migrate`", missing.join(", ")),
                Err(error) => error.to_string(),
            };
            if reason != *self.reason.lock() {
                tracing::warn!(reason, "the store is not ready yet");
                *self.reason.lock() = reason;
            }
            tokio::select! {
                () = lifecycle.draining().cancelled() => return false,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn try_prepare(&self, sessions: &Sessions) -> StoreResult<Vec<String>> {
        if self.create_indexes {
            self.store.migrate().await?;
        }
        sessions.read_clock().await?;
        self.store.missing_indexes().await
    }

    /// Has the store all it needs?
    pub fn is_prepared(&self) -> bool {
        self.prepared.get().is_some()
    }

    /// Ready: prepared, and it answers now.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<(), String> {
        self.store.now().await.map_err(|error| error.to_string())?;
        if self.is_prepared() { Ok(()) } else { Err(self.reason.lock().clone()) }
    }
}
