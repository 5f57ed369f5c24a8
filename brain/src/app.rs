//! The composition root: binds the sockets, builds the parts in the order of their dependencies, runs them, stops them.

mod commands;
mod open_store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chatbox_shared::clock::{Clock, SystemClock};
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::ops::{Ops, register_process_metrics};
use chatbox_shared::proto::link_server::LinkServer;
use chatbox_shared::tls::accept_tls;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use uuid::Uuid;

pub use commands::{migrate, usage};
use open_store::open_store;

use crate::config::{BrainConfig, StoreKind};
use crate::grpc::connections::Connections;
use crate::grpc::link::LinkService;
use crate::grpc::parts::LinkParts;
use crate::llm::endpoint::Endpoints;
use crate::llm::endpoint::metrics::EndpointCollector;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::reload::{Reloader, tunables};
use crate::service::context::Context as ServiceContext;
use crate::session::reconcile::{reconcile, settle_unknown_outcomes};
use crate::session::registry::Sessions;
use crate::store::key_check::KeyCheck;
use crate::tunables::LiveConfig;
use crate::turn::sweep::sweep;
use crate::turn::turns::{TurnSettings, Turns};

/// How often a gateway is pinged, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// The largest frame of the link. A frame holds little more than one frame of a client.
const MAX_FRAME_BYTES: usize = 4 << 20;
/// How long a readiness check may take.
const READY_PATIENCE: Duration = Duration::from_secs(2);
/// The time after the drain for handing leases over.
const HAND_OVER_TIME: Duration = Duration::from_secs(2);
/// How long gateways have to move their connections, once no answer grows here any more.
const MOVE_TIME: Duration = Duration::from_millis(500);

/// Runs the brain until a signal stops it. `false`: a critical task has failed.
///
/// # Errors
/// If the brain cannot start.
pub async fn run(config: BrainConfig, file: Option<PathBuf>) -> anyhow::Result<bool> {
    let lifecycle = Lifecycle::new();
    lifecycle.drain_on_signals()?;
    let listener = TcpListener::bind(config.brain.listen).await;
    let listener = listener.with_context(|| format!("brain.listen: cannot bind {}", config.brain.listen))?;
    let bound = Ops::bind(config.ops.listen).await;
    let (ops, ops_address) = bound.with_context(|| format!("ops.listen: cannot bind {}", config.ops.listen))?;
    let link_address = listener.local_addr()?;

    let mut registry = Registry::default();
    let parts = Parts::build(&config, &lifecycle, &mut registry).await?;
    serve_ops(ops, registry, Arc::clone(&parts.readiness), &lifecycle);
    parts.start_tasks(config.store.kind, &lifecycle);
    lifecycle.critical("reload", parts.reloader(file).run(&config, lifecycle.draining().clone())?);
    serve_link(&config, parts.link_service(&lifecycle), listener, &parts.metrics, &lifecycle)?;
    tracing::info!(link = %link_address, ops = %ops_address, brain = parts.brain_id, "listening");

    let drain = Duration::from_secs(config.shutdown.drain_seconds);
    let Parts { context, leave, detach, .. } = parts;
    lifecycle.spawn(drain_answers(context.turns, lifecycle.clone(), leave, detach, drain));
    Ok(lifecycle.shut_down(drain + HAND_OVER_TIME).await)
}

/// The parts of a brain. None of them runs before [`Parts::start_tasks`].
struct Parts {
    brain_id: String,
    metrics: Arc<Metrics>,
    endpoints: Arc<Endpoints>,
    readiness: Arc<Readiness>,
    clock: Arc<dyn Clock>,
    context: ServiceContext,
    /// See [`LinkParts::leave`].
    leave: CancellationToken,
    /// See [`LinkParts::detach`].
    detach: CancellationToken,
}

impl Parts {
    /// Builds the parts in the order of their dependencies.
    async fn build(config: &BrainConfig, lifecycle: &Lifecycle, registry: &mut Registry) -> anyhow::Result<Self> {
        register_process_metrics(registry.sub_registry_with_prefix("chatbox_brain"), SystemClock.now());
        let metrics = Arc::new(Metrics::new(registry));
        let endpoints = Arc::new(Endpoints::default());
        registry.register_collector(Box::new(EndpointCollector(Arc::clone(&endpoints))));
        let store = open_store(config, registry).await?;
        let keys = if config.keys.allow_missing { KeyCheck::Skipped } else { KeyCheck::Required };
        let readiness = Arc::new(Readiness::new(Arc::clone(&store), config.store.create_indexes, keys));

        let keyring = config.keyring().map_err(anyhow::Error::msg)?;
        let sessions = Arc::new(Sessions::new(store, keyring, lifecycle.clone()));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let live_config = Arc::new(LiveConfig::new(tunables(config, &clock, &endpoints)?));
        let brain_id = name(&config.brain.id);
        let settings = turn_settings(config, &brain_id);
        let turns = Turns::new(Arc::clone(&sessions), Arc::clone(&live_config), settings, Arc::clone(&metrics));
        let context = ServiceContext { sessions, turns: Arc::new(turns), live_config };
        let (leave, detach) = (CancellationToken::new(), CancellationToken::new());
        Ok(Self { brain_id, metrics, endpoints, readiness, clock, context, leave, detach })
    }

    /// Starts the tasks that need no link.
    fn start_tasks(&self, store: StoreKind, lifecycle: &Lifecycle) {
        let ServiceContext { sessions, turns, .. } = self.context.clone();
        lifecycle.critical("settle", settle_unknown_outcomes(Arc::clone(&sessions)));
        if store == StoreKind::Mongodb {
            // An embedded store has no other writers.
            lifecycle.critical("reconcile", reconcile(Arc::clone(&sessions)));
        }
        let (readiness, draining) = (Arc::clone(&self.readiness), lifecycle.clone());
        lifecycle.critical("sweep", async move {
            if readiness.prepare(&sessions, &draining).await {
                sweep(turns).await;
            }
        });
    }

    fn reloader(&self, file: Option<PathBuf>) -> Reloader {
        Reloader {
            file,
            live_config: Arc::clone(&self.context.live_config),
            endpoints: Arc::clone(&self.endpoints),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
        }
    }

    fn link_service(&self, lifecycle: &Lifecycle) -> LinkService {
        LinkService {
            parts: Arc::new(LinkParts {
                brain_id: self.brain_id.clone(),
                context: self.context.clone(),
                connections: Connections::default(),
                store_prepared: self.readiness.prepared(),
                lifecycle: lifecycle.clone(),
                leave: self.leave.clone(),
                detach: self.detach.clone(),
                metrics: Arc::clone(&self.metrics),
            }),
        }
    }
}

/// Serves the operations port. The brain is not ready until the store is prepared.
fn serve_ops(ops: Ops, registry: Registry, readiness: Arc<Readiness>, lifecycle: &Lifecycle) {
    let ops = ops.metrics(registry).check("store", READY_PATIENCE, move || {
        let readiness = Arc::clone(&readiness);
        async move { readiness.check().await }
    });
    ops.serve(lifecycle);
}

fn serve_link(
    config: &BrainConfig,
    link: LinkService,
    listener: TcpListener,
    metrics: &Metrics,
    lifecycle: &Lifecycle,
) -> anyhow::Result<()> {
    let service = LinkServer::new(link).max_decoding_message_size(MAX_FRAME_BYTES);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(Some(16 << 10))
        .add_service(service);
    let draining = lifecycle.draining().clone().cancelled_owned();
    if config.link.tls.is_set() {
        let tls = config.link.tls.server(metrics.certificate_expiry.clone(), lifecycle)?;
        let incoming = accept_tls(listener, tls, lifecycle);
        lifecycle.critical("link", ended(server.serve_with_incoming_shutdown(incoming, draining)));
    } else {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        lifecycle.critical("link", ended(server.serve_with_incoming_shutdown(incoming, draining)));
    }
    Ok(())
}

async fn ended(serving: impl Future<Output = Result<(), tonic::transport::Error>>) {
    if let Err(error) = serving.await {
        tracing::error!(%error, "the server of the link ended");
    }
}

/// The drain: waits until the growing answers have ended, `grace` at most, hands over the others, asks the gateways to move their
/// connections, and ends the links that are left.
async fn drain_answers(
    turns: Arc<Turns>,
    lifecycle: Lifecycle,
    leave: CancellationToken,
    detach: CancellationToken,
    grace: Duration,
) {
    lifecycle.draining().cancelled().await;
    let begun = Instant::now();
    while turns.count() > 0 && begun.elapsed() < grace && !lifecycle.stopping().is_cancelled() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    turns.hand_over();
    leave.cancel();
    tokio::time::sleep(MOVE_TIME).await;
    detach.cancel();
}

fn turn_settings(config: &BrainConfig, owner: &str) -> TurnSettings {
    let answers = &config.answers;
    TurnSettings {
        owner: owner.to_owned(),
        lease: Duration::from_millis(answers.lease_ms),
        checkpoint: Duration::from_millis(answers.checkpoint_ms),
        checkpoint_bytes: answers.checkpoint_bytes,
        max_attempts: answers.max_attempts,
        sweep_interval: Duration::from_millis(answers.sweep_interval_ms),
    }
}

fn name(configured: &str) -> String {
    if configured.is_empty() { format!("brain-{}", Uuid::new_v4().simple()) } else { configured.to_owned() }
}
