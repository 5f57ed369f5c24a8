//! The pool of read-only connections, each used by one read at a time on a blocking thread.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::schema::open_reader;
use crate::store::{StoreError, StoreResult};

/// Concurrent reads; further ones wait. More than this gains nothing on one disk.
const READERS: usize = 4;

/// The pool. Connections are opened at first use and kept.
#[derive(Clone)]
pub(super) struct Readers {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: Arc::new(path), idle: Arc::default(), permits: Arc::new(Semaphore::new(READERS)) }
    }

    /// Runs a read. A cancelled read still runs to its end before its connection is reused.
    pub(super) async fn read<T, F>(&self, read: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| gone())?;
        let pool = self.clone();
        let task = spawn_blocking(move || {
            let idle = pool.idle.lock().pop();
            let connection = idle.map_or_else(|| open_reader(&pool.path), Ok)?;
            let outcome = read(&connection);
            pool.idle.lock().push(connection);
            drop(permit);
            outcome
        });
        task.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("a reader of the database file has failed".into())
}
