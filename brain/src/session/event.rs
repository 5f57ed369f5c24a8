//! What a session tells its subscribers. Domain types only: each kind of subscriber encodes them in its own way.

use std::sync::OnceLock;

use bytes::Bytes;
use chatbox_shared::ids::{Seq, SessionId};

use super::view::SessionView;
use crate::log::entry::{Entry, Sender};

/// One event of a session.
#[derive(Debug, Clone, Copy)]
pub enum SessionEvent<'a> {
    /// An entry was appended, or has a new revision.
    Entry(&'a Entry),
    /// A growing answer got more text.
    Delta(AnswerDelta<'a>),
    /// The replay is complete: the subscriber has every entry up to this seq and follows live from here.
    Ready(Seq),
    /// The state of the session as a whole has changed.
    Changed(&'a SessionView),
    /// A participant began to type, or stopped.
    Typing {
        /// Who: the owner as `User`, anyone else as `Admin`.
        by: &'a Sender,
        /// Whether they type now.
        active: bool,
    },
    /// A participant has read up to this seq.
    Read {
        /// Who: the owner as `User`, anyone else as `Admin`.
        by: &'a Sender,
        /// The last entry they have read.
        seq: Seq,
    },
    /// The session was erased. No event follows.
    Deleted,
}

/// Text to append to a growing answer.
#[derive(Debug, Clone, Copy)]
pub struct AnswerDelta<'a> {
    /// The entry of the answer.
    pub seq: Seq,
    /// The attempt the text belongs to.
    pub attempt: u32,
    /// The index of the first delta in `text`.
    pub index: u64,
    /// How many consecutive deltas `text` holds; at least 1.
    pub count: u32,
    /// The text.
    pub text: &'a str,
}

/// An event on its way to all outlets of a session.
#[derive(Debug)]
pub struct Publication<'a> {
    /// The session it is about.
    pub session: SessionId,
    /// The event.
    pub event: SessionEvent<'a>,
    encoded: OnceLock<Bytes>,
}

impl<'a> Publication<'a> {
    /// An event that is not encoded yet.
    pub fn new(session: SessionId, event: SessionEvent<'a>) -> Self {
        Self { session, event, encoded: OnceLock::new() }
    }

    /// The event as protobuf. The first outlet that needs this form encodes it; all others share the bytes.
    pub fn encoded(&self, encode: impl FnOnce(SessionId, &SessionEvent<'a>) -> Bytes) -> Bytes {
        self.encoded.get_or_init(|| encode(self.session, &self.event)).clone()
    }
}
