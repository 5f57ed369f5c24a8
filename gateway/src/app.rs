//! The composition root: binds the sockets first, makes each part, hands it what it needs, and takes it all down again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chatbox_shared::auth::TokenVerifier;
use chatbox_shared::clock::{Clock, SystemClock};
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::ops::{Ops, register_process_metrics};
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::capacity::Capacity;
use crate::config::GatewaySettings;
use crate::connection::{self, Accepted, CloseCode, websocket_config};
use crate::handshake::{Handshake, origin};
use crate::link::{LinkSettings, Links};
use crate::listener::{Listener, Sockets};
use crate::metrics::Metrics;
use crate::roster::Roster;
use crate::routes::Routes;

/// How long a readiness check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(2);
/// What the tasks have, beyond the time to drain, to end.
const GRACE: Duration = Duration::from_secs(5);

/// A gateway that serves.
pub struct App {
    /// Where clients connect.
    pub public: SocketAddr,
    /// Where health and metrics are.
    pub ops: SocketAddr,
    lifecycle: Lifecycle,
    grace: Duration,
}

impl App {
    /// Starts everything.
    ///
    /// # Errors
    /// Where an address cannot be bound, or a file the settings name cannot be used.
    pub async fn start(settings: GatewaySettings, lifecycle: Lifecycle) -> anyhow::Result<Self> {
        let capacity =
            Capacity::determine(settings.limits.max_connections).context("reading the limit on open files")?;
        let address = settings.gateway.listen;
        let listener = Listener::bind(address, settings.limits.clone(), capacity.sockets)
            .await
            .with_context(|| format!("binding gateway.listen {address}"))?;
        let public = listener.address().context("reading the bound address")?;
        let ops_address = settings.ops.listen;
        let (ops_server, ops) =
            Ops::bind(ops_address).await.with_context(|| format!("binding ops.listen {ops_address}"))?;

        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut registry = Registry::with_prefix("chatbox_gateway");
        register_process_metrics(&mut registry, clock.now());
        let metrics = Metrics::new(&mut registry);
        let verifier = TokenVerifier::new(settings.auth.options(), Arc::clone(&clock), &lifecycle)?;
        let verifier = Arc::new(verifier);
        let roster = Roster::new(metrics.clone());
        let links = Links::start(link_settings(&settings)?, Arc::clone(&roster), &lifecycle, metrics.clone());
        let context = connection::Context {
            roster: Arc::clone(&roster),
            links: links.clone(),
            verifier: Arc::clone(&verifier),
            settings: connection_settings(&settings),
            metrics: metrics.clone(),
            clock,
        };

        serve_ops(ops_server, registry, &settings, links.clone(), Arc::clone(&verifier), &lifecycle);
        let handshake = Handshake::new(
            &settings,
            capacity.connections,
            verifier,
            Box::new(move || links.any_ready()),
            lifecycle.draining().clone(),
            metrics.clone(),
        );
        let routes = Routes::new(&settings.gateway.path_prefix, handshake);
        let socket_config = websocket_config(&context.settings);
        let closing = CancellationToken::new();
        let connections = Connections(Arc::new(context));
        listener.serve(routes, connections, socket_config, metrics, &lifecycle, closing.clone());
        let window = Duration::from_secs(settings.shutdown.drain_seconds);
        lifecycle.spawn(drain(roster, window, lifecycle.clone(), closing));

        warn_of_insecurity(&settings);
        tracing::info!(
            %public,
            %ops,
            max_connections = capacity.connections,
            open_files = capacity.open_files,
            "listening"
        );
        Ok(Self { public, ops, lifecycle, grace: window + GRACE })
    }

    /// Serves until the drain is over. Returns whether this was a clean end.
    pub async fn run(self) -> bool {
        self.lifecycle.shut_down(self.grace).await
    }
}

/// Hands open WebSockets to the connection loop.
struct Connections(Arc<connection::Context>);

impl Sockets for Connections {
    fn serve(&self, accepted: Accepted, socket: WebSocketStream<TcpStream>) -> impl Future<Output = ()> + Send {
        connection::serve(Arc::clone(&self.0), accepted, socket)
    }
}

/// Waits for the drain, closes the connections over the window, and only then the listener: until the end newcomers are
/// told to go elsewhere. A hard stop closes everything at once.
async fn drain(roster: Arc<Roster>, window: Duration, lifecycle: Lifecycle, closing: CancellationToken) {
    lifecycle.draining().cancelled().await;
    tokio::select! {
        () = async { roster.drain(window).await; roster.emptied().await } => {}
        () = lifecycle.stopping().cancelled() => roster.close_all(CloseCode::GOING_AWAY),
    }
    closing.cancel();
}

fn serve_ops(
    ops: Ops,
    registry: Registry,
    settings: &GatewaySettings,
    links: Links,
    verifier: Arc<TokenVerifier>,
    lifecycle: &Lifecycle,
) {
    let mut ops = ops.metrics(registry).check("brain", CHECK_LIMIT, move || {
        let reached = links.any_ready();
        async move { if reached { Ok(()) } else { Err("no brain can be reached".to_owned()) } }
    });
    if !settings.auth.jwks_url.is_empty() {
        ops = ops.check("token_keys", CHECK_LIMIT, move || {
            let loaded = verifier.has_keys();
            async move { if loaded { Ok(()) } else { Err("the JWKS has not been read yet".to_owned()) } }
        });
    }
    ops.serve(lifecycle);
}

fn link_settings(settings: &GatewaySettings) -> anyhow::Result<LinkSettings> {
    let id = &settings.gateway.id;
    let random = || format!("gateway-{}", &Uuid::new_v4().simple().to_string()[..8]);
    Ok(LinkSettings {
        gateway_id: if id.is_empty() { random() } else { id.clone() },
        endpoints: settings.brain.endpoints.iter().map(|endpoint| endpoint.parse()).collect::<Result<_, _>>()?,
        resolve_interval: Duration::from_millis(settings.brain.resolve_interval_ms),
        connect_timeout: Duration::from_millis(settings.brain.connect_timeout_ms),
        tls: settings.link.tls.is_set().then(|| settings.link.tls.client()).transpose()?,
    })
}

fn connection_settings(settings: &GatewaySettings) -> connection::Settings {
    let limits = &settings.limits;
    connection::Settings {
        max_frame_bytes: limits.max_frame_bytes,
        max_invalid_frames: limits.max_invalid_frames,
        requests_per_second: limits.requests_per_second,
        request_burst: limits.request_burst,
        max_in_flight: limits.max_in_flight,
        outbound_queue_bytes: limits.outbound_queue_bytes,
        heartbeat_interval: Duration::from_millis(settings.heartbeat.interval_ms),
    }
}

fn warn_of_insecurity(settings: &GatewaySettings) {
    if settings.security.allowed_origins.contains(&origin::Rule::Any) {
        tracing::warn!("security.insecure_any_origin is on: every web page may connect");
    }
    if settings.link.insecure {
        tracing::warn!("link.insecure is on: the link to the brains is plaintext");
    }
    if settings.auth.allow_query_token {
        tracing::warn!("auth.allow_query_token is on: tokens in URLs end up in the logs of proxies");
    }
}
