//! The accept loop: TCP connections up to a limit, HTTP/1.1 on each, and the step from HTTP to WebSocket.
//!
//! One task serves a connection from beginning to end. While it speaks HTTP its state is boxed; when the WebSocket opens
//! the box is gone, hyper and its buffers with it, and only the bare socket is handed on. Ten thousand idle connections
//! are the common case, so what a connection keeps is counted in bytes here.

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

use crate::config::Limits;
use crate::connection::Accepted;
use crate::handshake::Admitted;
use crate::metrics::{Handshake as Outcome, Metrics};
use crate::routes::{Answer, Routes};

/// The first and the longest rest after a failed accept: with no file descriptors left, trying at once would burn a core.
const ACCEPT_REST: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// How long a connection may take to finish its answer when the process ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// What becomes of an open WebSocket.
pub trait Sockets: Send + Sync + 'static {
    /// Serves it to its end.
    fn serve(&self, accepted: Accepted, socket: WebSocketStream<TcpStream>) -> impl Future<Output = ()> + Send;
}

/// The public address, bound and not yet served.
pub struct Listener {
    socket: TcpListener,
    limits: Limits,
    max_sockets: usize,
}

impl Listener {
    /// Binds the address. At most `max_sockets` connections will be open at once; the next ones wait to be accepted.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub async fn bind(address: SocketAddr, limits: Limits, max_sockets: usize) -> io::Result<Self> {
        let max_sockets = max_sockets.min(Semaphore::MAX_PERMITS);
        Ok(Self { socket: TcpListener::bind(address).await?, limits, max_sockets })
    }

    /// The address it got.
    ///
    /// # Errors
    /// Where the system cannot tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `closing`; `socket_config` is what the WebSockets get. During a drain it goes on, so that newcomers are told to go elsewhere.
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
        let shared = Arc::new(Shared { http: http(&self.limits), routes, sockets, socket_config, metrics, closing });
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

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Without a timer the timeout does nothing. It also ends connections that are idle between requests.
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_timeout_ms))
        .max_buf_size(limits.max_header_bytes)
        .max_header_size(limits.max_header_bytes)
        .max_headers(limits.max_headers);
    http
}

async fn accept<S: Sockets>(socket: TcpListener, max_sockets: usize, shared: Arc<Shared<S>>, lifecycle: Lifecycle) {
    let places = Arc::new(Semaphore::new(max_sockets));
    let mut rest = ACCEPT_REST.0;
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            socket.accept().await.map(|(stream, peer)| (stream, peer, place))
        };
        let Some(next) = shared.closing.run_until_cancelled(next).await else { return };
        match next {
            Ok((stream, peer, place)) => {
                rest = ACCEPT_REST.0;
                let open = Open::new(place, &shared.metrics);
                lifecycle.spawn(serve(stream, peer.ip(), Arc::clone(&shared), open));
            }
            // The client was gone before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                shared.metrics.accept_errors.inc();
                tracing::warn!(%error, ?rest, "cannot accept connections; resting");
                if shared.closing.run_until_cancelled(tokio::time::sleep(rest)).await.is_none() {
                    return;
                }
                rest = (rest * 2).min(ACCEPT_REST.1);
            }
        }
    }
}

/// Counts an open TCP connection while it lives.
struct Open {
    _place: OwnedSemaphorePermit,
    sockets: Gauge,
}

impl Open {
    fn new(place: OwnedSemaphorePermit, metrics: &Metrics) -> Self {
        metrics.sockets.inc();
        Self { _place: place, sockets: metrics.sockets.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.sockets.dec();
    }
}

/// One TCP connection, from the first byte to the last.
async fn serve<S: Sockets>(stream: TcpStream, peer: IpAddr, shared: Arc<Shared<S>>, open: Open) {
    if let Some((accepted, socket, place)) = Box::pin(speak_http(stream, peer, &shared)).await {
        shared.sockets.serve(accepted, socket).await;
        drop(place);
    }
    drop(open);
}

type Upgraded = (Accepted, WebSocketStream<TcpStream>, OwnedSemaphorePermit);

/// A handshake that passed and whose answer is on its way.
struct Pending {
    accepted: Accepted,
    place: OwnedSemaphorePermit,
    upgrade: OnUpgrade,
}

/// Answers requests until the connection ends or becomes a WebSocket.
async fn speak_http<S: Sockets>(stream: TcpStream, peer: IpAddr, shared: &Shared<S>) -> Option<Upgraded> {
    // Small frames must not wait for the acknowledgement of the frame before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let pending: Mutex<Option<Pending>> = Mutex::new(None);
    let service = service_fn(|request| async {
        let response = match shared.routes.answer(request, peer).await {
            Answer::Plain(response) => response,
            Answer::Socket(Admitted { accepted, place, response }, upgrade) => {
                *pending.lock() = Some(Pending { accepted, place, upgrade });
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
                tokio::time::timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
    let pending = pending.into_inner()?;
    let opened = open_socket(pending, shared.socket_config).await;
    shared.metrics.handshake(if opened.is_some() { Outcome::Accepted } else { Outcome::Abandoned });
    opened
}

/// Takes the bare socket back from hyper. What the client sent right behind its handshake is kept; hyper's buffer is not.
async fn open_socket(pending: Pending, config: WebSocketConfig) -> Option<Upgraded> {
    // hyper has ended, so this is settled: there is a socket, or the client went before the answer was written.
    let upgraded = pending.upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    let (stream, read_ahead) = (parts.io.into_inner(), parts.read_buf.to_vec());
    drop(parts.read_buf);
    let socket = if read_ahead.is_empty() {
        WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
    } else {
        WebSocketStream::from_partially_read(stream, read_ahead, Role::Server, Some(config)).await
    };
    Some((pending.accepted, socket, pending.place))
}

#[cfg(test)]
mod tests;
