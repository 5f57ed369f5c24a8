//! The composition root: binds the sockets first, makes every part with exactly what it needs, and stops them again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chatbox_link::{LinkEvents, Links};
use chatbox_shared::auth::TokenVerifier;
use chatbox_shared::clock::{Clock, SystemClock};
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::ops::{Ops, register_process_metrics};
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_util::sync::CancellationToken;

use crate::config::GatewaySettings;
use crate::connection::{self, Accepted, ConnectionContext, websocket_config};
use crate::handshake::Handshake;
use crate::limits::{Capacity, Slots};
use crate::listener::{Listener, Sockets};
use crate::metrics::Metrics;
use crate::registry::ConnectionRegistry;
use crate::routes::Routes;
use crate::send_queue::CloseCode;

/// The time limit of a readiness check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the tasks may take to end after the drain.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running gateway.
pub struct App {
    /// The address for clients.
    pub public: SocketAddr,
    /// The address of health and metrics.
    pub ops: SocketAddr,
    lifecycle: Lifecycle,
    /// The time limit of a shutdown.
    shutdown_timeout: Duration,
}

impl App {
    /// Starts every part.
    ///
    /// # Errors
    /// If an address cannot be bound, or a file that the settings name cannot be used.
    pub async fn start(settings: GatewaySettings, lifecycle: Lifecycle) -> anyhow::Result<Self> {
        let capacity =
            Capacity::determine(settings.limits.max_connections).context("reading the limit on open files")?;
        let address = settings.gateway.listen;
        let slots = Slots::new(
            capacity.http_sockets(),
            settings.limits.http_sockets_per_address,
            settings.security.proxy_networks(),
        );
        let listener = Listener::bind(address, settings.limits.http(), Arc::clone(&slots))
            .await
            .with_context(|| format!("binding gateway.listen {address}"))?;
        let public = listener.address().context("reading the bound address")?;
        let ops_address = settings.ops.listen;
        let (ops_server, ops) =
            Ops::bind(ops_address).await.with_context(|| format!("binding ops.listen {ops_address}"))?;

        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut metrics_registry = Registry::with_prefix("chatbox_gateway");
        register_process_metrics(&mut metrics_registry, clock.now());
        let metrics = Metrics::new(&mut metrics_registry);
        let verifier =
            TokenVerifier::new(settings.auth.options(metrics.jwks_stale.clone()), Arc::clone(&clock), &lifecycle)?;
        let verifier = Arc::new(verifier);
        let connections = ConnectionRegistry::new(metrics.clone());
        let links = chatbox_link::start(
            settings.links(metrics.certificate_expiry.clone(), &lifecycle)?,
            Arc::clone(&connections) as Arc<dyn LinkEvents>,
            metrics.links.clone(),
            &lifecycle,
            Arc::clone(&connections).links_unused(lifecycle.clone()),
        );
        let context = ConnectionContext {
            registry: Arc::clone(&connections),
            links: links.clone(),
            verifier: Arc::clone(&verifier),
            settings: settings.connection(),
            metrics: metrics.clone(),
            clock,
        };

        metrics.sockets_max.set(i64::try_from(capacity.sockets).unwrap_or(i64::MAX));
        let brain_links = links.clone();
        let handshake = Handshake::new(
            settings.handshake(capacity.connections),
            Arc::clone(&verifier),
            Box::new(move || brain_links.any_ready()),
            lifecycle.draining().clone(),
            metrics.clone(),
        );
        let connections_full = handshake.full();
        let full = move || connections_full() || slots.is_full();
        serve_ops(ops_server.metrics(metrics_registry), &settings, links, full, verifier, &lifecycle);
        let routes = Routes::new(&settings.gateway.path_prefix, handshake);
        let socket_config = websocket_config(&context.settings);
        let closing = CancellationToken::new();
        let sockets = ConnectionSockets(Arc::new(context));
        listener.serve(routes, sockets, socket_config, metrics, &lifecycle, closing.clone());
        let window = Duration::from_secs(settings.shutdown.drain_seconds);
        lifecycle.spawn(drain(connections, window, lifecycle.clone(), closing));

        settings.warn_if_insecure();
        tracing::info!(
            %public,
            %ops,
            max_connections = capacity.connections,
            open_files = capacity.open_files,
            "listening"
        );
        Ok(Self { public, ops, lifecycle, shutdown_timeout: window + STOP_TIMEOUT })
    }

    /// Serves until the process has shut down. Returns whether every task ended in time and none failed.
    pub async fn run(self) -> bool {
        self.lifecycle.shut_down(self.shutdown_timeout).await
    }
}

/// Serves open WebSockets with the connection loop.
struct ConnectionSockets(Arc<ConnectionContext>);

impl Sockets for ConnectionSockets {
    fn serve(&self, accepted: Accepted, socket: WebSocketStream<TcpStream>) -> impl Future<Output = ()> + Send {
        connection::serve(Arc::clone(&self.0), accepted, socket)
    }
}

/// Waits for the drain, closes the connections over the window, and then closes the listener. Until then new clients get
/// a response that sends them to another gateway. A hard stop closes everything at once.
async fn drain(
    connections: Arc<ConnectionRegistry>,
    window: Duration,
    lifecycle: Lifecycle,
    closing: CancellationToken,
) {
    lifecycle.draining().cancelled().await;
    tokio::select! {
        () = async { connections.drain(window).await; connections.emptied().await } => {}
        () = lifecycle.stopping().cancelled() => connections.close_all(CloseCode::GOING_AWAY),
    }
    closing.cancel();
}

fn serve_ops(
    ops: Ops,
    settings: &GatewaySettings,
    links: Links,
    full: impl Fn() -> bool + Send + Sync + 'static,
    verifier: Arc<TokenVerifier>,
    lifecycle: &Lifecycle,
) {
    let mut ops = ops
        .check("brain", CHECK_TIMEOUT, move || {
            let reached = links.any_ready();
            async move { if reached { Ok(()) } else { Err("no brain can be reached".to_owned()) } }
        })
        .check("capacity", CHECK_TIMEOUT, move || {
            let full = full();
            async move { if full { Err("the gateway is full".to_owned()) } else { Ok(()) } }
        });
    if !settings.auth.jwks_url.is_empty() {
        ops = ops.check("token_keys", CHECK_TIMEOUT, move || {
            let loaded = verifier.has_keys();
            async move { if loaded { Ok(()) } else { Err("the JWKS document cannot be read".to_owned()) } }
        });
    }
    ops.serve(lifecycle);
}
