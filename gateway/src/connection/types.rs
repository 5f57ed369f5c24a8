//! The types that the parts of a connection share: what every connection is given, and what can happen to one.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chatbox_link::Links;
use chatbox_shared::auth::{TokenError, TokenVerifier, Verified};
use chatbox_shared::clock::Clock;
use chatbox_shared::ids::ConnectionId;
use chatbox_shared::proto::GatewayFrame;
use tokio::sync::mpsc;
use tungstenite::Message;
use tungstenite::protocol::WebSocketConfig;

use crate::metrics::Metrics;
use crate::registry::ConnectionRegistry;
use crate::send_queue::Signal;

/// How long a close frame may wait for a client that does not read, and how long a client may take to answer it.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes read from the socket at once. Every idle connection holds a buffer of this size; most requests are smaller.
const READ_BUFFER: usize = 512;
/// Bytes collected before a write although more will follow. The WebSocket keeps the largest buffer it ever needed.
const WRITE_BATCH: usize = 4 * 1024;

/// What all connections share.
#[derive(Clone)]
pub struct ConnectionContext {
    /// The connections of this process.
    pub registry: Arc<ConnectionRegistry>,
    /// The links to the brains.
    pub links: Links,
    /// Verifies renewed tokens.
    pub verifier: Arc<TokenVerifier>,
    /// The limits of a client.
    pub settings: ConnectionSettings,
    /// The gateway's metrics.
    pub metrics: Metrics,
    /// The clock for the expiry of tokens.
    pub clock: Arc<dyn Clock>,
}

/// The limits of a client.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// Largest frame, in bytes.
    pub max_frame_bytes: usize,
    /// Invalid frames within a minute before the connection is closed.
    pub max_invalid_frames: u32,
    /// Sustained requests per second.
    pub requests_per_second: u32,
    /// Requests that may arrive at once.
    pub request_burst: u32,
    /// Requests without a reply. With more of them the socket is not read.
    pub max_in_flight: usize,
    /// Bytes of events that may wait for the socket.
    pub outbound_queue_bytes: usize,
    /// The interval of the server's pings. The idle timeout is twice as long.
    pub heartbeat_interval: Duration,
}

/// A connection whose handshake has passed.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The id, unique in the whole cluster.
    pub id: ConnectionId,
    /// The verified token.
    pub verified: Verified,
    /// The device that the client named.
    pub device: Option<String>,
    /// The address of the client.
    pub remote_ip: IpAddr,
}

/// The WebSocket configuration of a connection.
pub fn websocket_config(settings: &ConnectionSettings) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BATCH)
        .max_message_size(Some(settings.max_frame_bytes))
        .max_frame_size(Some(settings.max_frame_bytes))
}

/// Everything that can happen to a connection.
pub(super) enum ConnectionEvent {
    /// The next deadline has passed.
    Timer,
    /// There is room on the link. `None`: the link is lost.
    Room(Option<mpsc::OwnedPermit<GatewayFrame>>),
    /// The send queue asks for a close or for another link.
    Signal(Signal),
    /// A renewed token was verified.
    Refreshed(Refreshed),
    /// Messages to the brain were queued.
    Uplink,
    /// The client sent a message.
    Received(Message),
    /// The client violated the protocol, or the network failed.
    Failed(tungstenite::Error),
    /// The socket is closed.
    Gone,
}

/// The `id` of a `token_refresh` and the result of the verification.
pub(super) type Refreshed = (Option<Box<str>>, Result<Verified, TokenError>);

/// The verification of a renewed token.
pub(super) type Refresh = Pin<Box<dyn Future<Output = Refreshed> + Send>>;
