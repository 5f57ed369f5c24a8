//! Encodes the events of sessions as protobuf.

use bytes::Bytes;
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::SessionId;
use chatbox_shared::proto::{self, ServerMessage, server_message::Message};
use prost::Message as _;

use super::convert;
use crate::session::event::SessionEvent;

/// An event as an encoded `ServerMessage`.
pub(super) fn event(session: SessionId, event: &SessionEvent<'_>) -> Bytes {
    message(message_of(session, event))
}

/// An encoded `ServerMessage`.
pub(super) fn message(message: Message) -> Bytes {
    ServerMessage { message: Some(message) }.encode_to_vec().into()
}

/// What clients that had a session open are told when it was deleted.
pub(super) fn session_deleted(session_id: String) -> Message {
    Message::Notice(proto::Notice {
        code: "session_deleted".into(),
        message: "The session was deleted.".into(),
        session_id,
    })
}

/// What a client is told when the replay of a session has failed for good.
pub(super) fn session_failed(session_id: String, failure: &Failure) -> Message {
    Message::Notice(proto::Notice {
        code: failure.code.as_str().into(),
        message: failure.message.to_string(),
        session_id,
    })
}

fn message_of(session: SessionId, event: &SessionEvent<'_>) -> Message {
    let session_id = session.to_string();
    match event {
        SessionEvent::Entry(entry) => {
            Message::Entry(proto::EntryEvent { session_id, entry: Some(convert::entry(entry)) })
        }
        SessionEvent::Delta(delta) => Message::AiDelta(proto::AiDelta {
            session_id,
            seq: delta.seq,
            attempt: delta.attempt,
            index: delta.index,
            count: delta.count,
            delta: delta.text.to_owned(),
        }),
        SessionEvent::Ready(seq) => Message::SessionReady(proto::SessionReady { session_id, seq: *seq }),
        SessionEvent::Changed(view) => Message::Session(proto::SessionInfo {
            session: Some(convert::session(view)),
            truncated_before: 0,
            reset: false,
        }),
        SessionEvent::Typing { by, active } => {
            Message::Typing(proto::TypingEvent { session_id, user: Some(convert::sender(by)), active: *active })
        }
        SessionEvent::Read { by, seq } => {
            Message::Read(proto::ReadEvent { session_id, user: Some(convert::sender(by)), seq: *seq })
        }
        SessionEvent::Deleted => session_deleted(session_id),
    }
}
