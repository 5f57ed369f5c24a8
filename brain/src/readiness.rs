//! Whether the store can be used. The store may be unreachable when the brain starts, and without its unique indexes it must not
//! be used at all.

use std::time::Duration;

use chatbox_shared::lifecycle::Lifecycle;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::session::registry::Sessions;
use crate::store::key_check::KeyCheck;
use crate::store::{SharedStore, StoreResult};

/// The wait before a store that could not be prepared is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Prepares the store and reports whether it can be used.
pub struct Readiness {
    store: SharedStore,
    create_indexes: bool,
    keys: KeyCheck,
    prepared: watch::Sender<bool>,
    /// Why the store is not prepared yet.
    reason: Mutex<String>,
}

impl Readiness {
    /// `create_indexes`: create missing indexes. Otherwise wait until an operator has created them.
    pub fn new(store: SharedStore, create_indexes: bool, keys: KeyCheck) -> Self {
        let reason = Mutex::new("the store is being prepared".into());
        Self { store, create_indexes, keys, prepared: watch::Sender::new(false), reason }
    }

    /// Tries until the store has all indexes and `sessions` knows its time. `false`: the process drains.
    pub async fn prepare(&self, sessions: &Sessions, lifecycle: &Lifecycle) -> bool {
        loop {
            let reason = match self.try_prepare(sessions).await {
                Ok(None) => {
                    self.prepared.send_replace(true);
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

    /// Why the store cannot be used yet; `None` once it can.
    async fn try_prepare(&self, sessions: &Sessions) -> StoreResult<Option<String>> {
        if self.create_indexes {
            self.store.migrate().await?;
        }
        sessions.read_clock().await?;
        let indexes = self.store.missing_indexes().await?;
        if !indexes.is_empty() {
            return Ok(Some(format!("missing indexes: {}; run `chatbox-brain migrate`", indexes.join(", "))));
        }
        self.keys.problem(self.store.as_ref(), &sessions.keyring).await
    }

    /// `true` once the store has all it needs. It never changes back.
    pub fn prepared(&self) -> watch::Receiver<bool> {
        self.prepared.subscribe()
    }

    /// Ready: the store is prepared and answers now.
    ///
    /// # Errors
    /// Why the brain is not ready.
    pub async fn check(&self) -> Result<(), String> {
        self.store.now().await.map_err(|error| error.to_string())?;
        if *self.prepared.borrow() { Ok(()) } else { Err(self.reason.lock().clone()) }
    }
}
