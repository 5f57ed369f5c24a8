//! One attached gateway: takes its frames, holds its connections, and keeps the order of each connection's requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::ConnectionId;
use chatbox_shared::proto::{self, GatewayFrame, brain_frame, gateway_frame::Frame};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::connection::{Announced, Connection, QueuedRequest};
use super::convert;
use super::dispatch::handle;
use super::follow::resume_all;
use super::kick::KickReason;
use super::panic_guard::PanicGuard;
use super::parts::LinkParts;
use super::send_queue::SendQueue;
use crate::service::takeover;

/// Requests of one connection that may wait here. A gateway sends far fewer at once.
const MAX_QUEUED: usize = 256;

/// How long a request may take from its arrival, with all that stands before it. Then the client is told to try again.
const PATIENCE: Duration = Duration::from_millis(4800);

/// One attached gateway.
pub struct Gateway {
    parts: Arc<LinkParts>,
    /// Its name, for the log.
    id: String,
    queue: Arc<SendQueue>,
    /// Its connections by number.
    connections: HashMap<u64, Arc<Connection>>,
}

impl Gateway {
    /// A gateway without connections.
    pub fn new(parts: Arc<LinkParts>, id: String, queue: Arc<SendQueue>) -> Self {
        Self { parts, id, queue, connections: HashMap::new() }
    }

    /// Takes frames until the gateway leaves, does not read fast enough, or this brain stops. On a drain, asks the gateway to move
    /// its connections; the gateway then leaves by itself.
    pub async fn run(mut self, mut frames: Streaming<GatewayFrame>) {
        tracing::info!(gateway = self.id, "gateway attached");
        self.parts.metrics.links(1);
        let lifecycle = self.parts.lifecycle.clone();
        let leave = self.parts.leave.clone();
        let mut changes = self.parts.context.live_config.changes();
        let mut drain = Some(&leave);
        let reason = loop {
            let frame = tokio::select! {
                () = lifecycle.stopping().cancelled() => break "stopping",
                () = self.parts.detach.cancelled() => break "drained",
                () = self.queue.broken().cancelled() => break "the gateway did not read fast enough",
                () = cancelled(drain) => {
                    drain = None;
                    self.queue.send(brain_frame::Frame::Drain(proto::Drain {}));
                    continue;
                }
                Ok(()) = changes.changed() => {
                    // The gateway tells the models and sizes to clients that connect from now on.
                    self.queue.send(brain_frame::Frame::Welcome(self.parts.welcome()));
                    continue;
                }
                frame = frames.message() => frame,
            };
            match frame {
                Ok(Some(GatewayFrame { frame: Some(frame), .. })) => self.take(frame),
                // A frame of a later version of the protocol.
                Ok(Some(GatewayFrame { frame: None, .. })) => {}
                Ok(None) => break "the gateway left",
                Err(status) => {
                    tracing::debug!(gateway = self.id, %status, "link lost");
                    break "the link broke";
                }
            }
        };
        tracing::info!(gateway = self.id, connections = self.connections.len(), reason, "gateway detached");
        for connection in std::mem::take(&mut self.connections).into_values() {
            self.remove(&connection);
        }
        self.queue.broken().cancel();
        self.parts.metrics.links(-1);
    }

    pub(super) fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Hello(_) => tracing::warn!(gateway = self.id, "the gateway sent a second hello"),
            Frame::Open(open) => self.open(open),
            Frame::Request(request) => self.request(request),
            Frame::Close(close) => {
                if let Some(connection) = self.connections.remove(&close.conn) {
                    self.remove(&connection);
                }
            }
            Frame::Receipt(receipt) => {
                if let Some(connection) = self.connections.get(&receipt.conn) {
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
                tracing::error!(gateway = self.id, %failure, "the gateway announced a connection that cannot be opened");
                return;
            }
        };
        let device = Some(open.device).filter(|device| !device.is_empty()).map(String::into_boxed_str);
        let announced = Announced { conn: open.conn, id, device, connected_at: Timestamp(open.connected_at_ms) };
        let connection = Arc::new(Connection::new(announced, principal, Arc::clone(&self.queue)));
        if !self.parts.connections.add(&connection, self.parts.context.tunables().connections_per_user) {
            return;
        }
        self.parts.metrics.connections(1);
        if let Some(replaced) = self.connections.insert(open.conn, Arc::clone(&connection)) {
            self.remove(&replaced);
        }
        if !open.resume.is_empty() {
            resume_all(&self.parts.context, &connection, open.resume);
        }
    }

    fn request(&mut self, request: proto::Request) {
        let Some(connection) = self.connections.get(&request.conn) else { return };
        let message = request.message.unwrap_or_default();
        if connection.queued() >= MAX_QUEUED {
            connection.fail(request.request_no, &Failure::new(ErrorCode::RateLimited));
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        if connection.enqueue(QueuedRequest { request_no: request.request_no, message, deadline }) {
            let (parts, connection) = (Arc::clone(&self.parts), Arc::clone(connection));
            self.parts.lifecycle.spawn(async move { answer_requests(&parts, &connection).await });
        }
    }

    fn refresh(&mut self, refresh: proto::Refresh) {
        let Some(connection) = self.connections.get(&refresh.conn) else { return };
        match convert::principal(refresh.principal) {
            Ok(principal) if principal.user == connection.principal().user => {
                let was_admin = connection.principal().is_admin();
                connection.set_principal(principal.clone());
                if was_admin && !principal.is_admin() {
                    let cx = self.parts.context.clone();
                    self.parts.lifecycle.spawn(async move { takeover::release_all(&cx, &principal).await });
                }
            }
            _ => connection.kick(KickReason::Unauthorized),
        }
    }

    fn remove(&self, connection: &Arc<Connection>) {
        connection.close();
        self.parts.connections.remove(connection);
        self.parts.metrics.connections(-1);
    }
}

/// Answers the requests of a connection one after the other until none waits.
async fn answer_requests(parts: &LinkParts, connection: &Arc<Connection>) {
    let guard = PanicGuard::new(connection);
    while let Some(request) = connection.next_request() {
        handle(&parts.context, &parts.metrics, connection, request).await;
    }
    drop(guard);
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}
