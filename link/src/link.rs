//! One stream to one brain, from its greeting to its end. A brain that comes back gets a new link.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use chatbox_shared::proto::{GatewayFrame, gateway_frame};
use tokio::sync::{Notify, mpsc};

/// The state of a link. It only moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum LinkState {
    /// New connections may use the link.
    Ready,
    /// The brain stops soon: its connections move to other brains.
    Draining,
    /// The stream has ended.
    Lost,
}

/// A link, shared by the task that serves the stream and by the connections that use it.
#[derive(Debug)]
pub(crate) struct Link {
    /// Never 0 and never reused.
    pub(crate) id: u64,
    /// The brain's name for itself.
    pub(crate) brain: Box<str>,
    /// Bounded: a connection that waits for room does not read from its socket.
    pub(crate) sender: mpsc::Sender<GatewayFrame>,
    state: AtomicU8,
    /// The number of connections that use the link.
    users: AtomicUsize,
    /// Notified when the last user leaves.
    unused: Notify,
}

impl Link {
    /// A ready link without users.
    pub(crate) fn new(id: u64, brain: &str, sender: mpsc::Sender<GatewayFrame>) -> Self {
        Self {
            id,
            brain: brain.into(),
            sender,
            state: AtomicU8::new(LinkState::Ready as u8),
            users: AtomicUsize::new(0),
            unused: Notify::new(),
        }
    }

    /// Whether the link is in this state.
    pub(crate) fn is(&self, state: LinkState) -> bool {
        self.state.load(Ordering::Acquire) == state as u8
    }

    /// Moves the link to a state.
    pub(crate) fn set(&self, state: LinkState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Adds a user.
    pub(crate) fn enter(&self) {
        self.users.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes a user.
    pub(crate) fn leave(&self) {
        if self.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.unused.notify_one();
        }
    }

    /// Resolves once the brain drains and the last user has left.
    pub(crate) async fn drained(&self) {
        loop {
            let unused = self.unused.notified();
            if self.is(LinkState::Draining) && self.users.load(Ordering::Acquire) == 0 {
                return;
            }
            unused.await;
        }
    }
}

/// A frame without a trace context.
pub(crate) fn untraced(frame: gateway_frame::Frame) -> GatewayFrame {
    GatewayFrame { frame: Some(frame), traceparent: String::new() }
}
