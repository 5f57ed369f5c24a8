//! One WebSocket connection: one task, one loop, one closed list of what can happen to it.
//!
//! The loop never waits for anything but its own select: a socket that takes nothing, a link without room and a token
//! that is being checked are states, so a kick, a full queue or a lost heartbeat is noticed in all of them.

mod close;
pub(crate) mod event;
pub mod frame;
mod heartbeat;
pub(crate) mod outbound;
mod reader;
pub(crate) mod requests;
pub(crate) mod sessions;
mod state;
mod writer;

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::auth::{TokenError, TokenVerifier, Verified};
use chatbox_shared::clock::Clock;
use chatbox_shared::ids::ConnectionId;
use chatbox_shared::proto::GatewayFrame;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::protocol::WebSocketConfig;

pub use close::CloseCode;

use crate::link::Links;
use crate::metrics::Metrics;
use crate::roster::Roster;
use outbound::Signal;
use state::Connection;

/// How long a close frame may wait for a client that does not read, and a client may take to answer it.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes read from the socket at once. Every idle connection holds a buffer of this size; most requests are smaller.
const READ_BUFFER: usize = 512;
/// Bytes gathered before they are written even though more is to come. The WebSocket keeps what it once needed for this.
const WRITE_BATCH: usize = 4 * 1024;

/// What all connections share.
#[derive(Clone)]
pub struct Context {
    /// Who is connected.
    pub roster: Arc<Roster>,
    /// The ways to the brains.
    pub links: Links,
    /// Checks renewed tokens.
    pub verifier: Arc<TokenVerifier>,
    /// What a client may do.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Metrics,
    /// The time that tokens are measured with.
    pub clock: Arc<dyn Clock>,
}

/// What a client may do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of one frame.
    pub max_frame_bytes: usize,
    /// Invalid frames within a minute.
    pub max_invalid_frames: u32,
    /// Requests per second.
    pub requests_per_second: u32,
    /// Requests at once.
    pub request_burst: u32,
    /// Requests without a reply; above, the socket is not read.
    pub max_in_flight: usize,
    /// Bytes of events that may wait for the socket.
    pub outbound_queue_bytes: usize,
    /// How often the server pings.
    pub heartbeat_interval: Duration,
}

/// A connection whose handshake is done.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Its name in the whole cluster.
    pub id: ConnectionId,
    /// Whose it is.
    pub verified: Verified,
    /// The device the client named.
    pub device: Option<String>,
    /// Where it comes from.
    pub remote_ip: IpAddr,
}

/// How the WebSocket of a connection must be configured.
pub fn websocket_config(settings: &Settings) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BATCH)
        .max_message_size(Some(settings.max_frame_bytes))
        .max_frame_size(Some(settings.max_frame_bytes))
}

/// Everything that can happen to a connection.
enum Event {
    /// Something is due.
    Timer,
    /// There is room on the link; `None`: the link is gone.
    Room(Option<mpsc::OwnedPermit<GatewayFrame>>),
    /// Somebody wants it closed, or moved to another link.
    Signal(Signal),
    /// The check of a renewed token is done.
    Refreshed(Refreshed),
    /// There is something to tell the brain.
    Uplink,
    /// The client sent something.
    Received(Message),
    /// The client broke the protocol, or the network failed.
    Failed(tungstenite::Error),
    /// Both sides have closed.
    Gone,
}

/// The `id` of a `token_refresh` and what became of it.
type Refreshed = (Option<Box<str>>, Result<Verified, TokenError>);

/// Serves a connection until it ends. It is in the roster from this call on. A panic ends this connection alone: its
/// client is told 1011, and its brain that it is gone.
///
/// Every connection keeps this future, so it is made by hand: what an `async fn` takes by value, it keeps twice.
pub fn serve<S>(
    context: Arc<Context>,
    accepted: Accepted,
    mut socket: WebSocketStream<S>,
) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut connection = Connection::new(context, accepted);
    async move {
        if AssertUnwindSafe(run(&mut connection, &mut socket)).catch_unwind().await.is_err() {
            connection.panicked();
            // Nothing of the connection's state is used any more. The close frame is not waited for any longer than by
            // a client that does not read.
            drop(tokio::time::timeout(CLOSE_PATIENCE, socket.close(Some(CloseCode::INTERNAL.frame()))).await);
        }
        connection.uplink.end(connection.conn).await;
    }
}

async fn run<S>(connection: &mut Connection, socket: &mut WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut armed = connection.next_deadline();
    let mut timer = pin!(tokio::time::sleep_until(armed));
    loop {
        connection.send_up();
        let wanted = connection.next_deadline();
        // Deadlines mostly move away; then the timer wakes the loop once for nothing, which is cheaper than to set it
        // for every frame.
        if wanted < armed || timer.is_elapsed() {
            armed = wanted;
            timer.as_mut().reset(wanted);
        }
        let event = tokio::select! {
            biased;
            () = &mut timer => Event::Timer,
            permit = room(connection.uplink.blocked()) => Event::Room(permit),
            event = poll_fn(|task| connection.poll(socket, task)) => event,
        };
        if connection.handle(event).is_break() {
            return;
        }
    }
}

/// Waits for a place on a link.
async fn room(link: Option<mpsc::Sender<GatewayFrame>>) -> Option<mpsc::OwnedPermit<GatewayFrame>> {
    match link {
        Some(link) => link.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
