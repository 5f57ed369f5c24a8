//! A gate that a test opens when an answer may go on.

use tokio::sync::watch;

/// A gate that a test opens.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the gate for all who wait, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    pub(super) async fn opened(&self) {
        let mut watch = self.0.subscribe();
        // This fails only without a sender, and `self` is one.
        let _open = watch.wait_for(|open| *open).await;
    }
}
