//! The close of a connection: its code, its deadline, and what is still sent.

use std::ops::ControlFlow;

use tokio::time::Instant;

use super::types::CLOSE_TIMEOUT;
use crate::send_queue::CloseCode;

/// The close of a connection. The first reason determines the code.
pub(super) struct Closing {
    pub(super) code: CloseCode,
    /// When the connection ends even if the client has not answered.
    deadline: Instant,
    /// The close frame was written, or the client's close frame came first.
    pub(super) answered: bool,
    /// The client violated the WebSocket framing. Its further bytes are read and discarded: a socket that is closed with
    /// unread bytes is reset, and then the client might not receive the close frame.
    pub(super) broken: bool,
}

impl Closing {
    /// The waiting items and a close frame are sent; then the client may answer until the deadline.
    pub(super) fn with_frame(code: CloseCode) -> Self {
        Self { code, deadline: Instant::now() + CLOSE_TIMEOUT, answered: false, broken: false }
    }

    /// Nothing is sent any more.
    pub(super) fn at_once(code: CloseCode) -> Self {
        Self { code, deadline: Instant::now(), answered: true, broken: true }
    }

    /// When the connection ends.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the connection ends now.
    pub(super) fn check(&self, now: Instant) -> ControlFlow<()> {
        if now >= self.deadline { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
