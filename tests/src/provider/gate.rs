//! What a test holds closed until it is time.

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

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    pub(super) async fn opened(&self) {
        let mut watch = self.0.subscribe();
        // It fails only without a sender, and there is one in `self`.
        let _open = watch.wait_for(|open| *open).await;
    }
}
