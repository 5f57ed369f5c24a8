//! The frames the gateway makes by itself: `welcome`, `notice`, `pong`, bare `ack` and its own `error`s.

use std::time::Duration;

use chatbox_shared::auth::Principal;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::ConnectionId;
use chatbox_shared::proto;
use serde::Serialize;
use tungstenite::Utf8Bytes;

use super::entry::{NamedModel, Time};
use super::server;

/// What the first frame of a connection says.
pub struct Welcome<'a> {
    /// This connection.
    pub connection: ConnectionId,
    /// Who it belongs to.
    pub principal: &'a Principal,
    /// Now.
    pub time: Timestamp,
    /// How often the server pings.
    pub heartbeat: Duration,
    /// What can answer.
    pub models: &'a [proto::Model],
    /// What answers where nothing is chosen.
    pub default_model: &'a str,
    /// What a client must stay below.
    pub limits: Limits,
}

/// The sizes a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes of one frame.
    pub max_frame_bytes: usize,
    /// Characters of one message.
    pub max_content_chars: u32,
    /// Entries a `session_open` replays at most.
    pub replay_entries: u32,
    /// Requests per second, and at once.
    pub requests_per_second: u32,
    /// See `requests_per_second`.
    pub request_burst: u32,
    /// Largest page of a list.
    pub max_page: u64,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Control<'a> {
    Welcome {
        protocol: &'static str,
        connection_id: Id,
        user: User<'a>,
        server_time: Time,
        heartbeat_interval_ms: u64,
        models: Vec<NamedModel<'a>>,
        default_model_id: &'a str,
        limits: Limits,
    },
    Notice {
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reconnect_after_ms: Option<u64>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<&'a str>,
    },
    Ack {
        reply_to: &'a str,
    },
}

#[derive(Serialize)]
struct User<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    roles: &'a [String],
}

/// An id as text, written without making a `String` first.
struct Id(ConnectionId);

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Welcome<'_> {
    /// The frame.
    pub fn encode(&self) -> Option<Utf8Bytes> {
        server::write(&Control::Welcome {
            protocol: "chatbox.v1",
            connection_id: Id(self.connection),
            user: User {
                id: self.principal.user.as_str(),
                name: self.principal.name.as_deref(),
                roles: &self.principal.roles,
            },
            server_time: Time(self.time.0),
            heartbeat_interval_ms: millis(self.heartbeat),
            models: self.models.iter().map(NamedModel::of).collect(),
            default_model_id: self.default_model,
            limits: self.limits,
        })
    }
}

/// A `notice`.
pub fn notice(code: &str, message: &str, reconnect_after: Option<Duration>) -> Option<Utf8Bytes> {
    server::write(&Control::Notice { code, message, reconnect_after_ms: reconnect_after.map(millis) })
}

/// A `pong`.
pub fn pong(reply_to: Option<&str>) -> Option<Utf8Bytes> {
    server::write(&Control::Pong { reply_to })
}

/// The acknowledgement of a request that was not a message.
pub fn ack(reply_to: &str) -> Option<Utf8Bytes> {
    server::write(&Control::Ack { reply_to })
}

/// An `error` of the gateway itself.
pub fn error(reply_to: Option<&str>, failure: &Failure) -> Option<Utf8Bytes> {
    server::encode(&proto::server_message::Message::Error(failure.into()), reply_to)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
