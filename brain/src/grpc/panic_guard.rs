//! A connection ends if a task that works for it panics.

use super::connection::Connection;
use super::kick::KickReason;

/// Ends the connection if it is dropped by a panic: the request or replay under way gets no end, and no task goes on with what
/// waits behind it.
pub(super) struct PanicGuard<'a> {
    connection: &'a Connection,
}

impl<'a> PanicGuard<'a> {
    /// Guards the task that holds it.
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection }
    }
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.connection.kick(KickReason::Internal);
        }
    }
}
