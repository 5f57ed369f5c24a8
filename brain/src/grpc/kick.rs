//! Why the brain ends a client connection. The only place in the brain that knows the close codes of the gateway's protocol.

use chatbox_shared::proto::{Kick, Notice};

/// Why the brain ends a client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KickReason {
    /// The gateway reported a renewed token of another user.
    Unauthorized,
    /// Another connection of the same user has replaced this one.
    Replaced,
    /// The client took a replay too slowly. It may connect again and resume.
    TooSlow,
    /// A request of this connection has panicked.
    Internal,
    /// A session that the connection had open cannot be continued on this brain. The client may connect again and resume.
    CannotResume,
}

impl KickReason {
    /// The frame that ends the connection with this number.
    pub fn frame(self, conn: u64) -> Kick {
        let (close_code, code, message) = self.parts();
        let notice = Notice { code: code.into(), message: message.into(), session_id: String::new() };
        Kick { conn, close_code, notice: Some(notice) }
    }

    /// The close code, and the code and text of the notice before it.
    fn parts(self) -> (u32, &'static str, &'static str) {
        match self {
            Self::Unauthorized => (4001, "unauthorized", "The token belongs to another user."),
            Self::Replaced => (4002, "connection_replaced", "Another connection has replaced this one."),
            Self::TooSlow => (4008, "too_slow", "The connection took the replay too slowly."),
            Self::Internal => (1011, "internal", "Something went wrong on the server."),
            Self::CannotResume => (1012, "unavailable", "The session cannot be continued here; connect again."),
        }
    }
}
