//! Is the store ready to be used? It may be away when the brain starts, and a missing index makes it unusable in earnest.

use std::sync::OnceLock;
use std::time::Duration;

use chatbox_shared::lifecycle::Lifecycle;
use parking_lot::Mutex;

use super::key_check::KeyCheck;
use super::{SharedStore, StoreResult};
use crate::session::registry::Sessions;

/// How long to wait before a store that could not be prepared is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Prepares the store, and tells whether it answers.
pub struct Readiness {
    store: SharedStore,
    create_indexes: bool,
    keys: KeyCheck,
    prepared: OnceLock<()>,
    /// Why it is not prepared yet.
    reason: Mutex<String>,
}

impl Readiness {
    /// `create_indexes`: creates missing indexes instead of waiting for `migrate`.
    pub fn new(store: SharedStore, create_indexes: bool, keys: KeyCheck) -> Self {
        Self {
            store,
            create_indexes,
            keys,
            prepared: OnceLock::new(),
            reason: Mutex::new("it is being prepared".into()),
        }
    }

    /// Tries until the store has all it needs and `sessions` knows its time. `false`: the process drains.
    pub async fn prepare(&self, sessions: &Sessions, lifecycle: &Lifecycle) -> bool {
        loop {
            let reason = match self.try_prepare(sessions).await {
                Ok(None) => {
                    // Nobody else sets it.
                    let _ = self.prepared.set(());
                    return true;
                }
                Ok(Some(reason)) => reason,
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

    /// The reason why the store cannot be used yet; `None` once it can.
    async fn try_prepare(&self, sessions: &Sessions) -> StoreResult<Option<String>> {
        if self.create_indexes {
            self.store.migrate().await?;
        }
        sessions.read_clock().await?;
        let indexes = self.store.missing_indexes().await?;
        if !indexes.is_empty() {
            return Ok(Some(format!("missing indexes: {}; run `chatbox-brain migrate`", indexes.join(", "))));
        }
        let keys = self.keys.missing(self.store.as_ref()).await?;
        Ok((!keys.is_empty()).then(|| {
            format!(
                "stored sessions need master keys that are not in keys.keyring: {}; add them, or set keys.allow_missing = true",
                keys.join(", ")
            )
        }))
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
