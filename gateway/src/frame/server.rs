//! Server frames: the messages of the brain as JSON. The frame types borrow from the protobuf message, so that no text
//! is copied before it is serialised.

use chatbox_shared::proto::{self, server_message::Message};
use serde::Serialize;
use tungstenite::Utf8Bytes;

use super::entry::EntryJson;
use super::scalars::{PersonJson, Time, text};
use super::session::SessionJson;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ServerFrame<'a> {
    Session {
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<&'a str>,
        session: SessionJson<'a>,
    },
    SessionReady {
        session_id: &'a str,
        seq: u64,
    },
    Sessions {
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<&'a str>,
        sessions: Vec<SessionJson<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_cursor: Option<&'a str>,
    },
    Entries {
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<&'a str>,
        session_id: &'a str,
        entries: Vec<EntryJson<'a>>,
    },
    Entry {
        session_id: &'a str,
        entry: EntryJson<'a>,
    },
    Ack {
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<&'a str>,
        session_id: &'a str,
        client_msg_id: &'a str,
        message_id: &'a str,
        seq: u64,
        created_at: Time,
        duplicate: bool,
    },
    AiDelta {
        session_id: &'a str,
        seq: u64,
        attempt: u32,
        index: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        count: Option<u32>,
        delta: &'a str,
    },
    Typing {
        session_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<PersonJson<'a>>,
        active: bool,
    },
    Read {
        session_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<PersonJson<'a>>,
        seq: u64,
    },
    Notice {
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        session_id: Option<&'a str>,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<&'a str>,
        code: &'a str,
        message: &'a str,
        retryable: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<&'a str>,
        error_id: &'a str,
    },
}

/// Encodes a message of the brain as a frame. `None` if the message lacks its session or entry; that is an error of the
/// brain, and a client could not use the frame.
pub fn encode(message: &Message, reply_to: Option<&str>) -> Option<Utf8Bytes> {
    write(&match message {
        Message::Session(info) => {
            ServerFrame::Session { reply_to, session: SessionJson::replied(info.session.as_ref()?, info) }
        }
        Message::SessionReady(ready) => ServerFrame::SessionReady { session_id: &ready.session_id, seq: ready.seq },
        Message::Sessions(page) => ServerFrame::Sessions {
            reply_to,
            sessions: page.sessions.iter().map(SessionJson::of).collect(),
            next_cursor: text(&page.next_cursor),
        },
        Message::Entries(page) => ServerFrame::Entries {
            reply_to,
            session_id: &page.session_id,
            entries: page.entries.iter().map(EntryJson::of).collect(),
        },
        Message::Entry(event) => {
            ServerFrame::Entry { session_id: &event.session_id, entry: EntryJson::of(event.entry.as_ref()?) }
        }
        Message::Ack(ack) => ServerFrame::Ack {
            reply_to,
            session_id: &ack.session_id,
            client_msg_id: &ack.client_msg_id,
            message_id: &ack.message_id,
            seq: ack.seq,
            created_at: Time(ack.created_at_ms),
            duplicate: ack.duplicate,
        },
        Message::AiDelta(delta) => delta_frame(delta),
        Message::Typing(typing) => ServerFrame::Typing {
            session_id: &typing.session_id,
            user: typing.user.as_ref().map(PersonJson::of),
            active: typing.active,
        },
        Message::Read(read) => ServerFrame::Read {
            session_id: &read.session_id,
            user: read.user.as_ref().map(PersonJson::of),
            seq: read.seq,
        },
        Message::Notice(notice) => {
            ServerFrame::Notice { code: &notice.code, message: &notice.message, session_id: text(&notice.session_id) }
        }
        Message::Error(error) => ServerFrame::Error {
            reply_to,
            code: &error.code,
            message: &error.message,
            retryable: error.retryable,
            retry_after_ms: Some(error.retry_after_ms).filter(|wait| *wait > 0),
            field: text(&error.field),
            error_id: &error.error_id,
        },
    })
}

/// Encodes a delta as a frame. Merged deltas are not wrapped in a [`Message`] any more.
pub(crate) fn encode_delta(delta: &proto::AiDelta) -> Option<Utf8Bytes> {
    write(&delta_frame(delta))
}

fn delta_frame(delta: &proto::AiDelta) -> ServerFrame<'_> {
    ServerFrame::AiDelta {
        session_id: &delta.session_id,
        seq: delta.seq,
        attempt: delta.attempt,
        index: delta.index,
        count: Some(delta.count).filter(|count| *count > 1),
        delta: &delta.delta,
    }
}

/// Serialises a frame. Serialising these types to memory does not fail; if it did, the frame would be dropped and the
/// error logged.
pub(super) fn write<T: Serialize>(frame: &T) -> Option<Utf8Bytes> {
    match serde_json::to_string(frame) {
        Ok(text) => Some(Utf8Bytes::from(text)),
        Err(error) => {
            tracing::error!(%error, "cannot serialise a frame");
            None
        }
    }
}

#[cfg(test)]
mod tests;
