//! A session as its participants see it: a copy of the state, taken under the session's lock.

use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{Seq, SessionId};

use crate::ledger::UsageSum;
use crate::log::state::Summary;

/// The state of a session at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// Distinguishes this log from an earlier log with the same id.
    pub epoch: String,
    /// When it was created.
    pub started_at: Timestamp,
    /// Its name in plain text; empty without one.
    pub name: String,
    /// The fold of the log.
    pub summary: Summary,
    /// The seq up to which the owner has read.
    pub read_seq: Seq,
    /// What its calls of models have used.
    pub usage: UsageSum,
}
