//! Is the store ready to be used? It may be away when the brain starts, and a missing index makes it unusable in earnest.

use std::sync::OnceLock;
use std::time::Duration;

use chatbox_shared::lifecycle::Lifecycle;

use super::{SharedStore, StoreResult};

/// How long to wait before a store that could not be prepared is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Prepares the store, and tells whether it answers.
pub struct Readiness {
    store: SharedStore,
    create_indexes: bool,
    prepared: OnceLock<()>,
}

impl Readiness {
    /// `create_indexes`: make missing ones, instead of waiting for somebody who does.
    pub fn new(store: SharedStore, create_indexes: bool) -> Self {
        Self { store, create_indexes, prepared: OnceLock::new() }
    }

    /// Tries until the store has all it needs. `false`: the process drains.
    pub async fn prepare(&self, lifecycle: &Lifecycle) -> bool {
        let mut said = String::new();
        loop {
            let reason = match self.try_prepare().await {
                Ok(missing) if missing.is_empty() => {
                    // Nobody else sets it.
                    let _ = self.prepared.set(());
                    return true;
                }
                Ok(missing) => format!("missing indexes: {}; run `brain migrate`", missing.join(", ")),
                Err(error) => error.to_string(),
            };
            if reason != said {
                tracing::warn!(reason, "the store is not ready yet");
                said = reason;
            }
            tokio::select! {
                () = lifecycle.draining().cancelled() => return false,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn try_prepare(&self) -> StoreResult<Vec<String>> {
        if self.create_indexes {
            self.store.migrate().await?;
        }
        self.store.missing_indexes().await
    }

    /// Ready: prepared, and it answers now.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<(), String> {
        self.store.now().await.map_err(|error| error.to_string())?;
        if self.prepared.get().is_some() { Ok(()) } else { Err("it is being prepared; see the log".into()) }
    }
}
