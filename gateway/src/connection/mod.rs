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
mod writer;

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::auth::{TokenError, TokenVerifier, Verified};
use chatbox_shared::clock::{Clock, Timestamp};
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::ConnectionId;
use chatbox_shared::proto::GatewayFrame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, Utf8Bytes};

pub use close::CloseCode;

use crate::limits::TokenBucket;
use crate::link::{Links, Speaker, Uplink, Upward};
use crate::metrics::{Close, Metrics};
use crate::roster::Roster;
use heartbeat::{Due, Heartbeat};
use outbound::{Item, Outbound, Signal};
use reader::Offences;
use requests::Requests;
use sessions::Sessions;
use writer::Writer;

/// How long a close frame may wait for a client that does not read, and a client may take to answer it.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes read from the socket at once. Every idle connection holds a buffer of this size.
const READ_BUFFER: usize = 1024;
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

/// Serves a connection until it ends. It is in the roster from this call on.
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
        run(&mut connection, &mut socket).await;
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

/// A connection without its socket.
struct Connection {
    context: Arc<Context>,
    accepted: Accepted,
    since: Timestamp,
    conn: u64,
    outbound: Arc<Outbound>,
    uplink: Uplink,
    requests: Requests,
    sessions: Sessions,
    bucket: TokenBucket,
    offences: Offences,
    heartbeat: Heartbeat,
    /// A renewed token that is being checked.
    refresh: Option<Pin<Box<dyn Future<Output = Refreshed> + Send>>>,
    writer: Writer,
    closing: Option<Closing>,
}

/// A connection on its way out.
struct Closing {
    code: CloseCode,
    deadline: Instant,
    /// Our close frame was written, or the client's came first.
    answered: bool,
    /// The client broke the framing: its bytes are thrown away unread, but they are taken, for a socket closed with
    /// unread bytes is reset, and the client might never see why.
    broken: bool,
}

impl Connection {
    /// Enters a connection into the roster, its welcome waiting in the queue, and brings it to a brain.
    fn new(context: Arc<Context>, accepted: Accepted) -> Self {
        let (now, wall) = (Instant::now(), context.clock.now());
        let settings = &context.settings;
        let outbound = Arc::new(Outbound::new(settings.outbound_queue_bytes));
        if let Some(welcome) = welcome(&context, &accepted, wall) {
            outbound.push_own(Item::Text(welcome));
        }
        let mut connection = Self {
            conn: context.roster.add(Arc::clone(&outbound)),
            bucket: TokenBucket::new(settings.requests_per_second.into(), settings.request_burst),
            heartbeat: Heartbeat::new(settings.heartbeat_interval, accepted.verified.expires_at, now, wall),
            offences: Offences::new(now),
            context,
            accepted,
            since: wall,
            outbound,
            uplink: Uplink::default(),
            requests: Requests::default(),
            sessions: Sessions::default(),
            refresh: None,
            writer: Writer::default(),
            closing: None,
        };
        connection.attach();
        connection
    }

    fn handle(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Timer => return self.tick(),
            Event::Room(Some(permit)) => {
                let (uplink, speaker) = self.speak();
                uplink.send_one(permit, &speaker);
            }
            // The pool will say that the link is lost.
            Event::Room(None) | Event::Uplink => {}
            Event::Signal(Signal::Relink) if self.closing.is_some() => {}
            Event::Signal(Signal::Relink) => self.attach(),
            Event::Signal(Signal::Close(code)) => self.close(code),
            Event::Refreshed((id, outcome)) => self.refreshed(id, outcome),
            Event::Received(message) => self.received(message),
            Event::Failed(error) => return self.failed(&error),
            Event::Gone => {
                self.ended(CloseCode::ABNORMAL);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// When [`Event::Timer`] must come.
    fn next_deadline(&self) -> Instant {
        if let Some(closing) = &self.closing {
            return closing.deadline;
        }
        let next = self.heartbeat.next();
        match self.requests.next_expiry() {
            Some(expiry) if self.uplink.is_detached() => next.min(expiry),
            _ => next,
        }
    }

    fn tick(&mut self) -> ControlFlow<()> {
        let (now, wall) = (Instant::now(), self.context.clock.now());
        if let Some(closing) = &self.closing {
            return if now >= closing.deadline { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        while self.closing.is_none()
            && let Some(due) = self.heartbeat.due(now, wall)
        {
            match due {
                Due::Ping => self.outbound.push_own(Item::Ping),
                // Nobody listened to it.
                Due::Silent if self.is_busy() => self.heartbeat.heard(now),
                Due::Silent => self.close(CloseCode::HEARTBEAT),
                Due::Warn => {
                    self.say(frame::notice("token_expiring", "The token expires soon. Please send a new one.", None))
                }
                Due::Expired => self.close(CloseCode::TOKEN),
            }
        }
        while self.uplink.is_detached()
            && let Some(pending) = self.requests.expired(now)
        {
            self.context.metrics.in_flight.dec();
            self.refuse(pending.id.as_deref(), &Failure::new(ErrorCode::Unavailable));
        }
        ControlFlow::Continue(())
    }

    /// Begins to close: what waits is sent first, then the close frame. The first reason counts.
    fn close(&mut self, code: CloseCode) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        self.closing.get_or_insert(Closing { code, deadline, answered: false, broken: false });
        self.refresh = None;
    }

    fn failed(&mut self, error: &tungstenite::Error) -> ControlFlow<()> {
        match CloseCode::answering(error) {
            Some(code) if self.closing.is_none() => {
                self.close(code);
                if let Some(closing) = &mut self.closing {
                    closing.broken = true;
                }
                ControlFlow::Continue(())
            }
            _ => {
                self.ended(CloseCode::ABNORMAL);
                ControlFlow::Break(())
            }
        }
    }

    /// It has ended, with this code if none was agreed on.
    fn ended(&mut self, code: CloseCode) {
        self.closing.get_or_insert(Closing { code, deadline: Instant::now(), answered: true, broken: true });
    }

    /// Queues a frame of the gateway's own.
    fn say(&self, text: Option<Utf8Bytes>) {
        if let Some(text) = text {
            self.outbound.push_own(Item::Text(text));
        }
    }

    /// Queues an `error`.
    fn refuse(&self, reply_to: Option<&str>, failure: &Failure) {
        tracing::debug!(connection = %self.accepted.id, code = %failure.code, field = ?failure.field, error_id = %failure.error_id, "a request is refused");
        self.say(frame::error(reply_to, failure));
    }

    fn attach(&mut self) {
        let links = self.context.links.clone();
        let (uplink, speaker) = self.speak();
        uplink.attach(&links, &speaker);
    }

    fn send_up(&mut self) {
        if !self.uplink.is_idle() {
            let (uplink, speaker) = self.speak();
            uplink.send(&speaker);
        }
    }

    /// The uplink, and what it may say.
    fn speak(&mut self) -> (&mut Uplink, Speaker<'_>) {
        let speaker = Speaker {
            conn: self.conn,
            since: self.since,
            accepted: &self.accepted,
            outbound: &self.outbound,
            sessions: &self.sessions,
            requests: &self.requests,
            metrics: &self.context.metrics,
        };
        (&mut self.uplink, speaker)
    }

    fn refreshed(&mut self, id: Option<Box<str>>, outcome: Result<Verified, TokenError>) {
        match outcome {
            Ok(verified) if verified.principal.user == self.accepted.verified.principal.user => {
                self.heartbeat.renew(verified.expires_at, Instant::now(), self.context.clock.now());
                self.accepted.verified = verified;
                self.uplink.push(Upward::Refresh);
                self.say(id.as_deref().and_then(frame::ack));
            }
            outcome => {
                let reason = outcome.err().map_or("another_user", TokenError::reason);
                tracing::info!(connection = %self.accepted.id, reason, "a renewed token is refused");
                self.refuse(id.as_deref(), &Failure::new(ErrorCode::Unauthorized));
                self.close(CloseCode::TOKEN);
            }
        }
    }
}

/// Leaves the roster whatever ended the task.
impl Drop for Connection {
    fn drop(&mut self) {
        let code = self.closing.as_ref().map_or(CloseCode::INTERNAL, |closing| closing.code);
        self.context.roster.remove(self.conn);
        self.uplink.abandon(self.conn);
        self.context.metrics.in_flight.dec_by(i64::try_from(self.requests.len()).unwrap_or_default());
        self.context.metrics.closed(Close::of(code.0));
        tracing::info!(
            connection = %self.accepted.id,
            user = %self.accepted.verified.principal.user,
            code = code.0,
            duration_ms = u64::try_from(self.context.clock.now().since(self.since).as_millis()).unwrap_or(u64::MAX),
            frames_in = self.offences.frames(),
            frames_out = self.writer.frames(),
            "connection closed"
        );
    }
}

/// The first frame.
fn welcome(context: &Context, accepted: &Accepted, time: Timestamp) -> Option<Utf8Bytes> {
    let (info, settings) = (context.links.info(), &context.settings);
    frame::Welcome {
        connection: accepted.id,
        principal: &accepted.verified.principal,
        time,
        heartbeat: settings.heartbeat_interval,
        models: &info.models,
        default_model: &info.default_model,
        limits: frame::Limits {
            max_frame_bytes: settings.max_frame_bytes,
            max_content_chars: info.max_content_chars,
            replay_entries: info.replay_entries,
            requests_per_second: settings.requests_per_second,
            request_burst: settings.request_burst,
            max_page: frame::MAX_PAGE,
        },
    }
    .encode()
}

#[cfg(test)]
mod tests;
