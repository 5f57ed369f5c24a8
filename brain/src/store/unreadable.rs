//! Rows that this version cannot read. A page goes on without such a row, or with a placeholder for it. Each row is counted
//! and logged when it is met first, with its id and never with its contents.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use uuid::Uuid;

use super::error::{StoreError, StoreResult};

/// The name of the counter. Prometheus adds `_total`.
const METRIC: &str = "chatbox_brain_unreadable_rows";

/// The collections of the store, as the label `collection` names them.
const COLLECTIONS: [&str; 4] = ["accounts", "messages", "sessions", "usage"];

/// How many rows are remembered. Further rows are counted and logged each time.
const REMEMBERED: usize = 10_000;

/// The collection and the id of a row, as far as the id can be read.
type RowId = (&'static str, Option<Uuid>);

/// The unreadable rows that a store has met. Clones share their contents.
#[derive(Debug, Clone, Default)]
pub struct UnreadableRows {
    counter: Family<Labels, Counter>,
    met: Arc<Mutex<HashSet<RowId>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    collection: &'static str,
}

impl UnreadableRows {
    /// Registers the counter.
    pub(super) fn register(&self, registry: &mut Registry) {
        for collection in COLLECTIONS {
            drop(self.counter.get_or_create(&Labels { collection }));
        }
        registry.register(METRIC, "Stored rows that this version cannot read, each counted once", self.counter.clone());
    }

    /// The value of a row of this collection. `None`: this version cannot read the row.
    ///
    /// # Errors
    /// Any error but [`StoreError::Corrupt`].
    pub(super) fn skip<T>(
        &self,
        collection: &'static str,
        id: Option<Uuid>,
        row: StoreResult<T>,
    ) -> StoreResult<Option<T>> {
        match row {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Corrupt(reason)) => {
                self.note(collection, id, &reason);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn note(&self, collection: &'static str, id: Option<Uuid>, reason: &str) {
        let mut met = self.met.lock();
        if met.contains(&(collection, id)) {
            return;
        }
        if met.len() < REMEMBERED {
            met.insert((collection, id));
        }
        drop(met);
        self.counter.get_or_create(&Labels { collection }).inc();
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        tracing::error!(collection, id, reason, "a stored row cannot be read");
    }
}
