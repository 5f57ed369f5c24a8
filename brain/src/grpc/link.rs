//! The link's server side: one stream per gateway. It turns frames into calls and keeps the order of each connection's
//! requests; what they mean is `session::requests`.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::ConnectionId;
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::proto::{
    self, BrainFrame, GatewayFrame, LINK_VERSION, brain_frame, gateway_frame::Frame, link_server::Link,
};
use futures_util::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use super::outbox::{Outbox, outbox};
use crate::connection::{Announced, Connection, QueuedRequest};
use crate::connections::Connections;
use crate::metrics::Metrics;
use crate::session::requests::Chat;
use crate::store::readiness::Readiness;

/// WebSocket close code: a fault of the server.
const CLOSE_INTERNAL: u32 = 1011;
/// WebSocket close code: the token was refused.
const CLOSE_UNAUTHORIZED: u32 = 4001;
/// Requests of one connection that may wait here; a gateway keeps to far fewer.
const MAX_QUEUED: usize = 256;

/// Serves `chatbox.v1.Link`.
#[derive(Clone)]
pub struct LinkService {
    /// What every link shares.
    pub parts: Arc<LinkParts>,
}

/// What every link needs.
pub struct LinkParts {
    /// This brain's name.
    pub brain_id: String,
    /// Answers requests.
    pub chat: Chat,
    /// All connections by user.
    pub connections: Connections,
    /// Whether the store may be used.
    pub readiness: Arc<Readiness>,
    /// Tasks and the drain.
    pub lifecycle: Lifecycle,
    /// Cancelled when the gateways are to move their connections: once no answer grows here any more, so that nobody is
    /// moved away from an answer that is being read.
    pub leave: CancellationToken,
    /// Cancelled when a drain is over: gateways that are still attached are let go.
    pub detach: CancellationToken,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl Link for LinkService {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<BrainFrame, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<GatewayFrame>>) -> Result<Response<Self::AttachStream>, Status> {
        if !self.parts.readiness.is_prepared() {
            // Without its unique keys the store would take everything twice.
            return Err(Status::unavailable("the store is not ready yet"));
        }
        let mut frames = request.into_inner();
        let hello = match frames.message().await?.and_then(|frame| frame.frame) {
            Some(Frame::Hello(hello)) => hello,
            _ => return Err(Status::invalid_argument("the first frame must be hello")),
        };
        if hello.link_version != LINK_VERSION {
            let text = format!("link version {} is spoken here, not {}", LINK_VERSION, hello.link_version);
            return Err(Status::failed_precondition(text));
        }
        let (outbox, reader) = outbox();
        outbox.send(brain_frame::Frame::Welcome(self.parts.welcome()));
        let gateway = Gateway { parts: Arc::clone(&self.parts), id: hello.gateway_id, outbox, conns: HashMap::new() };
        self.parts.lifecycle.spawn(gateway.run(frames));
        let frames = futures_util::stream::unfold(reader, |mut reader| async move {
            reader.next().await.map(|frame| (Ok(frame), reader))
        });
        Ok(Response::new(Box::pin(frames)))
    }
}

impl LinkParts {
    fn welcome(&self) -> proto::Welcome {
        let tunables = self.chat.tunables();
        let (catalog, limits) = (&tunables.catalog, &tunables.limits);
        proto::Welcome {
            brain_id: self.brain_id.clone(),
            link_version: LINK_VERSION,
            models: catalog
                .list()
                .iter()
                .map(|model| proto::Model { id: model.id.clone(), name: model.name.clone() })
                .collect(),
            default_model_id: catalog.default_model().id.clone(),
            max_content_chars: u32::try_from(limits.max_content_chars).unwrap_or(u32::MAX),
            replay_entries: u32::try_from(limits.replay_entries).unwrap_or(u32::MAX),
        }
    }
}

/// One attached gateway.
struct Gateway {
    parts: Arc<LinkParts>,
    id: String,
    outbox: Outbox,
    conns: HashMap<u64, Arc<Connection>>,
}

impl Gateway {
    /// Takes frames until the gateway leaves, does not keep up, or this brain stops. A drain is announced; the gateway
    /// then moves its connections and leaves by itself.
    async fn run(mut self, mut frames: Streaming<GatewayFrame>) {
        tracing::info!(gateway = self.id, "gateway attached");
        self.parts.metrics.links(1);
        let lifecycle = self.parts.lifecycle.clone();
        let leave = self.parts.leave.clone();
        let mut changes = self.parts.chat.changes();
        let mut drain = Some(&leave);
        let reason = loop {
            let frame = tokio::select! {
                () = lifecycle.stopping().cancelled() => break "stopping",
                () = self.parts.detach.cancelled() => break "drained",
                () = self.outbox.broken().cancelled() => break "the gateway did not keep up",
                () = cancelled(drain) => {
                    drain = None;
                    self.outbox.send(brain_frame::Frame::Drain(proto::Drain {}));
                    continue;
                }
                Ok(()) = changes.changed() => {
                    // Other models or sizes: clients that connect from now on are told.
                    self.outbox.send(brain_frame::Frame::Welcome(self.parts.welcome()));
                    continue;
                }
                frame = frames.message() => frame,
            };
            match frame {
                Ok(Some(GatewayFrame { frame: Some(frame), .. })) => self.take(frame),
                // A frame of a later version.
                Ok(Some(GatewayFrame { frame: None, .. })) => {}
                Ok(None) => break "the gateway left",
                Err(status) => {
                    tracing::debug!(gateway = self.id, %status, "link lost");
                    break "the link broke";
                }
            }
        };
        tracing::info!(gateway = self.id, connections = self.conns.len(), reason, "gateway detached");
        for connection in std::mem::take(&mut self.conns).into_values() {
            self.gone(&connection);
        }
        self.outbox.broken().cancel();
        self.parts.metrics.links(-1);
    }

    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Hello(_) => tracing::warn!(gateway = self.id, "a second hello"),
            Frame::Open(open) => self.open(open),
            Frame::Request(request) => self.request(request),
            Frame::Close(close) => {
                if let Some(connection) = self.conns.remove(&close.conn) {
                    self.gone(&connection);
                }
            }
            Frame::Receipt(receipt) => {
                if let Some(connection) = self.conns.get(&receipt.conn) {
                    connection.receipt(receipt.receipt);
                }
            }
            Frame::Refresh(refresh) => self.refresh(refresh),
        }
    }

    fn open(&mut self, open: proto::Open) {
        let id = convert::id::<ConnectionId>(&open.connection_id, "connection_id");
        let opened = id.and_then(|id| Ok((id, convert::principal(open.principal)?)));
        let (id, principal) = match opened {
            Ok(opened) => opened,
            Err(failure) => {
                tracing::error!(gateway = self.id, %failure, "a connection that cannot be opened");
                return;
            }
        };
        let device = Some(open.device).filter(|device| !device.is_empty()).map(String::into_boxed_str);
        let announced = Announced { conn: open.conn, id, device, connected_at: Timestamp(open.connected_at_ms) };
        let connection = Arc::new(Connection::new(announced, principal, self.outbox.clone()));
        self.parts.connections.add(&connection, self.parts.chat.tunables().connections_per_user);
        self.parts.metrics.connections(1);
        if let Some(replaced) = self.conns.insert(open.conn, Arc::clone(&connection)) {
            self.gone(&replaced);
        }
        if !open.resume.is_empty() {
            // Requests wait until the sessions are open again: they are queued behind by the busy mark.
            connection.hold_requests();
            let parts = Arc::clone(&self.parts);
            self.parts.lifecycle.spawn(async move {
                for resume in &open.resume {
                    parts.chat.resume(&connection, resume).await;
                }
                work_off(&parts, &connection).await;
            });
        }
    }

    fn request(&mut self, request: proto::Request) {
        let Some(connection) = self.conns.get(&request.conn) else { return };
        let message = request.message.unwrap_or_default();
        if connection.queued() >= MAX_QUEUED {
            connection.fail(request.request_no, &Failure::new(chatbox_shared::failure::ErrorCode::RateLimited));
            return;
        }
        if connection.enqueue(QueuedRequest { request_no: request.request_no, message }) {
            let (parts, connection) = (Arc::clone(&self.parts), Arc::clone(connection));
            self.parts.lifecycle.spawn(async move { work_off(&parts, &connection).await });
        }
    }

    fn refresh(&mut self, refresh: proto::Refresh) {
        let Some(connection) = self.conns.get(&refresh.conn) else { return };
        match convert::principal(refresh.principal) {
            Ok(principal) if principal.user == connection.principal().user => connection.set_principal(principal),
            _ => connection.kick(CLOSE_UNAUTHORIZED, "unauthorized", "The token belongs to somebody else."),
        }
    }

    fn gone(&self, connection: &Arc<Connection>) {
        connection.close();
        self.parts.connections.remove(connection);
        self.parts.metrics.connections(-1);
    }
}

/// Answers a connection's requests one after the other until there are none.
async fn work_off(parts: &LinkParts, connection: &Arc<Connection>) {
    let guard = PanicGuard { connection };
    while let Some(request) = connection.next_request() {
        parts.chat.handle(connection, request).await;
    }
    drop(guard);
}

/// A request that panics has no reply, and nobody works on the next one: the connection ends, the others live.
struct PanicGuard<'a> {
    connection: &'a Connection,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.connection.kick(CLOSE_INTERNAL, "internal", "Something went wrong on the server.");
        }
    }
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}
