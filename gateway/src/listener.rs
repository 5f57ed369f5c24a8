//! The accept loop: TCP connections up to a limit, one HTTP/1.1 request on each of them, and the step from HTTP to WebSocket.
//!
//! One task serves a connection from its first byte to its last. The state of the HTTP phase is boxed: when the WebSocket
//! opens, the box is freed together with hyper and its buffers, and only the socket is kept. Ten thousand idle
//! connections are the common case, so every byte that a connection keeps counts.

use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::lifecycle::Lifecycle;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_util::sync::CancellationToken;
use tungstenite::protocol::{Role, WebSocketConfig};

use crate::connection::Accepted;
use crate::error;
use crate::handshake::Admitted;
use crate::limits::{LogBudget, NoSlot, Slot, Slots};
use crate::metrics::{HandshakeOutcome, Metrics};
use crate::routes::{RouteResponse, Routes};

/// The shortest and the longest pause after a failed accept. Without free file descriptors an immediate retry would keep
/// a core busy.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// How long a connection may take to finish its response when the listener closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// When a client whose socket was refused may try again.
const REFUSAL_RETRY: Duration = Duration::from_secs(3);

/// The limits of the HTTP phase.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// The time limit for the head of a request.
    pub header_timeout: Duration,
    /// The time limit from the accepted socket to the open WebSocket.
    pub http_timeout: Duration,
    /// Largest head of a request, in bytes.
    pub max_header_bytes: usize,
    /// Largest number of headers.
    pub max_headers: usize,
}

/// The service of the open WebSockets.
pub trait Sockets: Send + Sync + 'static {
    /// Serves a WebSocket until it ends.
    fn serve(&self, accepted: Accepted, socket: WebSocketStream<TcpStream>) -> impl Future<Output = ()> + Send;
}

/// The bound public address.
pub struct Listener {
    socket: TcpListener,
    limits: HttpLimits,
    slots: Arc<Slots>,
}

impl Listener {
    /// Binds the address. A socket has one of the `slots` until it becomes a WebSocket. A socket without a slot is refused
    /// at once, so that sockets without a token never keep others from an answer.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(address: SocketAddr, limits: HttpLimits, slots: Arc<Slots>) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, limits, slots })
    }

    /// The bound address.
    ///
    /// # Errors
    /// If the system does not report the address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `closing` is cancelled. The listener also serves during a drain, so that new clients get a response
    /// that sends them to another gateway. `socket_config` is the configuration of the WebSockets.
    pub fn serve<S: Sockets>(
        self,
        routes: Routes,
        sockets: S,
        socket_config: WebSocketConfig,
        metrics: Metrics,
        lifecycle: &Lifecycle,
        closing: CancellationToken,
    ) {
        let log_budget = LogBudget::new(metrics.suppressed_log_lines.clone());
        let shared = Arc::new(Shared {
            http: http(self.limits),
            http_timeout: self.limits.http_timeout,
            slots: self.slots,
            routes,
            sockets,
            socket_config,
            metrics,
            log_budget,
            closing,
        });
        let loop_lifecycle = lifecycle.clone();
        lifecycle.critical("listener", accept(self.socket, shared, loop_lifecycle));
    }
}

/// What all connections share.
struct Shared<S> {
    http: http1::Builder,
    http_timeout: Duration,
    slots: Arc<Slots>,
    routes: Routes,
    sockets: S,
    socket_config: WebSocketConfig,
    metrics: Metrics,
    log_budget: LogBudget,
    closing: CancellationToken,
}

fn http(limits: HttpLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Without a timer hyper ignores the timeout.
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_header_bytes)
        .max_header_size(limits.max_header_bytes)
        .max_headers(limits.max_headers);
    http
}

async fn accept<S: Sockets>(socket: TcpListener, shared: Arc<Shared<S>>, lifecycle: Lifecycle) {
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        let Some(next) = shared.closing.run_until_cancelled(socket.accept()).await else { return };
        match next {
            Ok((stream, peer)) => {
                pause = ACCEPT_PAUSE.0;
                match shared.slots.take(peer.ip()) {
                    Ok(slot) => {
                        let open = OpenSocket::new(&shared.metrics);
                        lifecycle.spawn(serve(stream, peer.ip(), Arc::clone(&shared), open, slot));
                    }
                    Err(reason) => shared.refuse(stream, peer.ip(), reason),
                }
            }
            // The client left before its connection was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                shared.metrics.accept_errors.inc();
                tracing::warn!(%error, ?pause, "cannot accept a connection; pausing");
                if shared.closing.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
}

impl<S> Shared<S> {
    /// Refuses a socket without a slot, and closes it.
    fn refuse(&self, stream: TcpStream, peer: IpAddr, reason: NoSlot) {
        let (outcome, code) = match reason {
            NoSlot::Full => (HandshakeOutcome::Full, ErrorCode::Unavailable),
            NoSlot::AddressFull => (HandshakeOutcome::RateLimited, ErrorCode::RateLimited),
        };
        let failure = Failure::new(code).retry_after(REFUSAL_RETRY);
        self.metrics.handshake(outcome);
        if self.log_budget.allows(peer) {
            tracing::warn!(client = %peer, outcome = outcome.as_str(), error_id = failure.error_id, "socket refused");
        }
        if let Err(error) = write_and_close(stream, &error::raw_response(&failure)) {
            tracing::debug!(%error, "cannot write a refusal");
        }
    }
}

/// Writes to a socket without waiting. The response fits into the empty buffer of a new socket. The request is discarded
/// first as far as it has arrived: a socket that is closed with unread bytes is reset.
fn write_and_close(stream: TcpStream, response: &[u8]) -> io::Result<()> {
    let mut stream = stream.into_std()?;
    let _request = stream.read(&mut [0; 4096]);
    stream.write_all(response)?;
    stream.shutdown(Shutdown::Write)
}

/// Counts a TCP connection while it is open.
struct OpenSocket {
    sockets: Gauge,
}

impl OpenSocket {
    fn new(metrics: &Metrics) -> Self {
        metrics.sockets.inc();
        Self { sockets: metrics.sockets.clone() }
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.sockets.dec();
    }
}

/// One TCP connection, from the first byte to the last.
async fn serve<S: Sockets>(stream: TcpStream, peer: IpAddr, shared: Arc<Shared<S>>, open: OpenSocket, slot: Slot) {
    let opened = Box::pin(speak_http(stream, peer, &shared)).await;
    drop(slot);
    if let Some((accepted, socket, permit)) = opened {
        shared.sockets.serve(accepted, socket).await;
        drop(permit);
    }
    drop(open);
}

type Upgraded = (Accepted, WebSocketStream<TcpStream>, OwnedSemaphorePermit);

/// A handshake that passed its checks, and whose response is being written.
struct PendingUpgrade {
    accepted: Accepted,
    permit: OwnedSemaphorePermit,
    upgrade: OnUpgrade,
}

/// Answers one request. Then the connection ends or becomes a WebSocket.
async fn speak_http<S: Sockets>(stream: TcpStream, peer: IpAddr, shared: &Shared<S>) -> Option<Upgraded> {
    // A small frame must not wait for the acknowledgement of the previous frame.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let pending: Mutex<Option<PendingUpgrade>> = Mutex::new(None);
    let service = service_fn(|request| async {
        let response = match shared.routes.answer(request, peer).await {
            RouteResponse::Plain(response) => response,
            RouteResponse::Socket(Admitted { accepted, permit, response }, upgrade) => {
                *pending.lock() = Some(PendingUpgrade { accepted, permit, upgrade });
                response
            }
        };
        Ok::<_, Infallible>(response)
    });
    let ended = {
        let mut connection = pin!(shared.http.serve_connection(TokioIo::new(stream), service).with_upgrades());
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = shared.closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(CLOSE_TIMEOUT, connection).await.unwrap_or(Ok(()))
            }
            () = tokio::time::sleep(shared.http_timeout) => {
                tracing::debug!(client = %peer, "HTTP connection took too long");
                Ok(())
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended early");
    }
    let pending = pending.into_inner()?;
    let opened = open_socket(pending, shared.socket_config).await;
    shared.metrics.handshake(if opened.is_some() { HandshakeOutcome::Accepted } else { HandshakeOutcome::Abandoned });
    opened
}

/// Takes the socket back from hyper. Bytes that the client sent directly after its handshake are copied, so that hyper's
/// buffer can be freed.
async fn open_socket(pending: PendingUpgrade, config: WebSocketConfig) -> Option<Upgraded> {
    // hyper has ended, so the result is known: the socket, or an error if the client left before the response was written.
    let upgraded = pending.upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    let (stream, read_ahead) = (parts.io.into_inner(), parts.read_buf.to_vec());
    drop(parts.read_buf);
    let socket = if read_ahead.is_empty() {
        WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
    } else {
        WebSocketStream::from_partially_read(stream, read_ahead, Role::Server, Some(config)).await
    };
    Some((pending.accepted, socket, pending.permit))
}

#[cfg(test)]
mod tests;
