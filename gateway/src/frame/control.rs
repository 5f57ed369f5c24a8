//! The frames that the gateway writes itself: `welcome`, `notice`, `pong`, the bare `ack` and its own `error`s.

use std::time::Duration;

use chatbox_shared::auth::Principal;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::ConnectionId;
use chatbox_shared::proto;
use serde::Serialize;
use tungstenite::Utf8Bytes;

use super::scalars::Time;
use super::server;
use super::session::ModelJson;

/// The content of the first frame of a connection.
pub struct Welcome<'a> {
    /// The connection.
    pub connection: ConnectionId,
    /// The user of the connection.
    pub principal: &'a Principal,
    /// The current time.
    pub time: Timestamp,
    /// The interval of the server's pings.
    pub heartbeat: Duration,
    /// The models that a client may select.
    pub models: &'a [proto::Model],
    /// The model of a session for which none was selected.
    pub default_model: &'a str,
    /// The limits of a client.
    pub limits: WelcomeLimits,
}

/// The limits that a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WelcomeLimits {
    /// Largest frame, in bytes.
    pub max_frame_bytes: usize,
    /// Longest message, in characters.
    pub max_content_chars: u32,
    /// Largest number of entries that a `session_open` replays.
    pub replay_entries: u32,
    /// Sustained requests per second.
    pub requests_per_second: u32,
    /// Requests that a client may send at once.
    pub request_burst: u32,
    /// Largest page of a list, in elements.
    pub max_page: u64,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ControlFrame<'a> {
    Welcome {
        protocol: &'static str,
        connection_id: ConnectionIdJson,
        user: User<'a>,
        server_time: Time,
        heartbeat_interval_ms: u64,
        models: Vec<ModelJson<'a>>,
        default_model_id: &'a str,
        limits: WelcomeLimits,
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

/// An id, serialised as text without an intermediate `String`.
struct ConnectionIdJson(ConnectionId);

impl Serialize for ConnectionIdJson {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Welcome<'_> {
    /// The frame as JSON.
    pub fn encode(&self) -> Option<Utf8Bytes> {
        server::write(&ControlFrame::Welcome {
            protocol: "chatbox.v1",
            connection_id: ConnectionIdJson(self.connection),
            user: User {
                id: self.principal.user.as_str(),
                name: self.principal.name.as_deref(),
                roles: &self.principal.roles,
            },
            server_time: Time(self.time.0),
            heartbeat_interval_ms: millis(self.heartbeat),
            models: self.models.iter().map(ModelJson::of).collect(),
            default_model_id: self.default_model,
            limits: self.limits,
        })
    }
}

/// A `notice`.
pub fn notice(code: &str, message: &str, reconnect_after: Option<Duration>) -> Option<Utf8Bytes> {
    server::write(&ControlFrame::Notice { code, message, reconnect_after_ms: reconnect_after.map(millis) })
}

/// A `pong`.
pub fn pong(reply_to: Option<&str>) -> Option<Utf8Bytes> {
    server::write(&ControlFrame::Pong { reply_to })
}

/// The acknowledgement of a request that is not a chat message.
pub fn ack(reply_to: &str) -> Option<Utf8Bytes> {
    server::write(&ControlFrame::Ack { reply_to })
}

/// An `error` that the gateway itself reports.
pub fn error(reply_to: Option<&str>, failure: &Failure) -> Option<Utf8Bytes> {
    server::encode(&proto::server_message::Message::Error(failure.into()), reply_to)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
