//! The accept loop: TCP connections up to a limit, HTTP/1.1 on each of them, and the step from HTTP to WebSocket.
//!
//! One task serves a connection from its first byte to its last. The state of the HTTP phase is boxed: when the WebSocket
//! opens, the box is freed together with hyper and its buffers, and only the socket is kept. Ten thousand idle
//! connections are the common case, so every byte that a connection keeps counts.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::lifecycle::Lifecycle;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_tungstenite::WebSocketStream;
use tokio_util::sync::CancellationToken;
use tungstenite::protocol::{Role, WebSocketConfig};

use crate::connection::Accepted;
use crate::handshake::Admitted;
use crate::metrics::{HandshakeOutcome, Metrics};
use crate::routes::{RouteResponse, Routes};

/// The shortest and the longest pause after a failed accept. Without free file descriptors an immediate retry would keep
/// a core busy.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// How long a connection may take to finish its response when the listener closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The limits of HTTP requests.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// The time limit for the head of a request.
    pub header_timeout: Duration,
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
    max_sockets: usize,
}

impl Listener {
    /// Binds the address. At most `max_sockets` connections are open at the same time; further ones wait to be accepted.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(address: SocketAddr, limits: HttpLimits, max_sockets: usize) -> io::Result<Self> {
        let max_sockets = max_sockets.min(Semaphore::MAX_PERMITS);
        Ok(Self { socket: TcpListener::bind(address).await?, limits, max_sockets })
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
        metrics.sockets_max.set(i64::try_from(self.max_sockets).unwrap_or(i64::MAX));
        let shared = Arc::new(Shared { http: http(self.limits), routes, sockets, socket_config, metrics, closing });
        let loop_lifecycle = lifecycle.clone();
        lifecycle.critical("listener", accept(self.socket, self.max_sockets, shared, loop_lifecycle));
    }
}

/// What all connections share.
struct Shared<S> {
    http: http1::Builder,
    routes: Routes,
    sockets: S,
    socket_config: WebSocketConfig,
    metrics: Metrics,
    closing: CancellationToken,
}

fn http(limits: HttpLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Without a timer hyper ignores the timeout. The timeout also ends connections that are idle between requests.
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_header_bytes)
        .max_header_size(limits.max_header_bytes)
        .max_headers(limits.max_headers);
    http
}

async fn accept<S: Sockets>(socket: TcpListener, max_sockets: usize, shared: Arc<Shared<S>>, lifecycle: Lifecycle) {
    let permits = Arc::new(Semaphore::new(max_sockets));
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
            socket.accept().await.map(|(stream, peer)| (stream, peer, permit))
        };
        let Some(next) = shared.closing.run_until_cancelled(next).await else { return };
        match next {
            Ok((stream, peer, permit)) => {
                pause = ACCEPT_PAUSE.0;
                let open = OpenSocket::new(permit, &shared.metrics);
                lifecycle.spawn(serve(stream, peer.ip(), Arc::clone(&shared), open));
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

/// Counts a TCP connection while it is open.
struct OpenSocket {
    _permit: OwnedSemaphorePermit,
    sockets: Gauge,
}

impl OpenSocket {
    fn new(permit: OwnedSemaphorePermit, metrics: &Metrics) -> Self {
        metrics.sockets.inc();
        Self { _permit: permit, sockets: metrics.sockets.clone() }
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.sockets.dec();
    }
}

/// One TCP connection, from the first byte to the last.
async fn serve<S: Sockets>(stream: TcpStream, peer: IpAddr, shared: Arc<Shared<S>>, open: OpenSocket) {
    if let Some((accepted, socket, permit)) = Box::pin(speak_http(stream, peer, &shared)).await {
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

/// Answers requests until the connection ends or becomes a WebSocket.
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
