//! Opens the store that the settings select.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;

use crate::config::{BrainConfig, StoreKind};
use crate::store::SharedStore;
use crate::store::mongo::{MongoOptions, MongoStore};
use crate::store::observed::Observed;
use crate::store::sqlite::SqliteStore;

/// Opens the store of a running brain: with a time limit and metrics.
pub(super) async fn open_store(config: &BrainConfig, registry: &mut Registry) -> anyhow::Result<SharedStore> {
    let store = connect(config, Access::Exclusive).await?;
    let limit = Duration::from_millis(config.store.timeout_ms);
    Ok(Observed::wrap(store, limit, registry))
}

/// Whether other processes may use an embedded store at the same time. MongoDB is always shared.
#[derive(Clone, Copy)]
pub(super) enum Access {
    /// A brain, or a command that writes.
    Exclusive,
    /// A command that only reads.
    Shared,
}

/// Opens the store.
pub(super) async fn connect(config: &BrainConfig, access: Access) -> anyhow::Result<SharedStore> {
    match config.store.kind {
        StoreKind::Sqlite => {
            let path = &config.store.sqlite.path;
            let opened = match access {
                Access::Exclusive => SqliteStore::open_exclusive(path),
                Access::Shared => SqliteStore::open(path),
            };
            let store = opened.with_context(|| format!("store.sqlite.path: {}", path.display()))?;
            Ok(Arc::new(store))
        }
        StoreKind::Mongodb => {
            let settings = &config.store.mongodb;
            let options = MongoOptions {
                uri: settings.uri.clone().context("store.mongodb.uri is missing")?,
                database: settings.database.clone(),
                max_pool_size: settings.max_pool_size,
                allow_standalone: settings.allow_standalone,
                timeout: Duration::from_millis(config.store.timeout_ms),
            };
            Ok(Arc::new(MongoStore::connect(options).await?))
        }
    }
}
