//! The lock that keeps a second brain off a database file: `NAME.lock` beside it, locked with `flock`. The system releases
//! the lock when the process ends, however it ends; the empty file stays. The database file itself cannot serve: on some
//! file systems `flock` and SQLite's own locks exclude each other.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::store::{StoreError, StoreResult};

/// The lock, until dropped.
#[derive(Debug)]
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock of the database at `database` without waiting.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where another process holds it; [`StoreError::Unavailable`] where the lock file cannot be
    /// opened.
    pub(super) fn take(database: &Path) -> StoreResult<Self> {
        let path = lock_path(database);
        let failed = |error| StoreError::Unavailable(format!("cannot lock {}: {error}", path.display()));
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Refused(format!(
                "another brain uses this database file (it holds the lock {}); several brains need store.kind = \"mongodb\"",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// Beside the real file, so that two names of one file lead to one lock.
fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.canonicalize().unwrap_or_else(|_| database.to_owned()).into_os_string();
    path.push(".lock");
    path.into()
}
