//! The audit lines: who has read the session of another user, and who has deleted a session. They are log events of the
//! target `audit`, so that a filter can keep them when others are off (`warn,audit=info`). They contain ids only.

use chatbox_shared::auth::Principal;
use chatbox_shared::ids::SessionId;

use crate::session::handle::Session;

/// The ways to read a session.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reading {
    /// An admin follows it.
    Watch,
    /// An admin takes over and follows it.
    Join,
    /// A client continues to follow it through another brain.
    Resume,
    /// One page of older entries.
    History,
}

impl Reading {
    fn as_str(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Join => "join",
            Self::Resume => "resume",
            Self::History => "history",
        }
    }
}

/// Writes a line if the session belongs to another user.
pub(super) fn read(by: &Principal, session: &Session, reading: Reading) {
    if session.owner != by.user {
        let (action, user) = (reading.as_str(), by.user.as_str());
        tracing::info!(target: "audit", action, user, owner = session.owner.as_str(), session = %session.id, "session read");
    }
}

/// Writes a line for the deletion of a session by its owner.
pub(super) fn deleted(by: &Principal, session: SessionId) {
    tracing::info!(target: "audit", action = "delete", user = by.user.as_str(), %session, "session deleted");
}
