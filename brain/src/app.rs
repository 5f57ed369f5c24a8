//! The composition root: binds the sockets, builds the parts in the order of their dependencies, runs them, stops them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chatbox_shared::clock::{Clock, SystemClock};
use chatbox_shared::ids::UserId;
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

use crate::config::{BrainConfig, StoreKind};
use crate::grpc::connections::Connections;
use crate::grpc::link::LinkService;
use crate::grpc::parts::LinkParts;
use crate::ledger::Day;
use crate::llm::endpoint::Endpoints;
use crate::llm::endpoint::metrics::EndpointCollector;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::reload::{Reloader, tunables};
use crate::service::context::Context as ServiceContext;
use crate::session::reconcile::{reconcile, settle_unknown_outcomes};
use crate::session::registry::Sessions;
use crate::store::SharedStore;
use crate::store::key_check::KeyCheck;
use crate::store::mongo::{MongoOptions, MongoStore};
use crate::store::observed::Observed;
use crate::store::sqlite::SqliteStore;
use crate::tunables::LiveConfig;
use crate::turn::sweep::sweep;
use crate::turn::turns::{TurnSettings, Turns};

/// Days read in one query.
const USAGE_PAGE: u32 = 100;
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

    let mut registry = Registry::default();
    register_process_metrics(registry.sub_registry_with_prefix("chatbox_brain"), SystemClock.now());
    let metrics = Arc::new(Metrics::new(&mut registry));
    let endpoints = Arc::new(Endpoints::default());
    registry.register_collector(Box::new(EndpointCollector(Arc::clone(&endpoints))));
    let store = open_store(&config, &mut registry).await?;
    let keyring = config.keyring().map_err(anyhow::Error::msg)?;
    let keys = KeyCheck::new(&keyring, config.keys.allow_missing);
    let readiness = Arc::new(Readiness::new(Arc::clone(&store), config.store.create_indexes, keys));
    let asked = Arc::clone(&readiness);
    let ops = ops.metrics(registry).check("store", READY_PATIENCE, move || {
        let readiness = Arc::clone(&asked);
        async move { readiness.check().await }
    });
    // From here on the operations port answers, and reports the brain as not ready until the store is prepared.
    ops.serve(&lifecycle);

    let link_address = listener.local_addr()?;
    let sessions = Arc::new(Sessions::new(Arc::clone(&store), keyring, lifecycle.clone()));
    let wall_clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let live_config = Arc::new(LiveConfig::new(tunables(&config, &wall_clock, &endpoints)?));
    let brain_id = name(&config.brain.id);
    let settings = turn_settings(&config, &brain_id);
    let turns = Turns::new(Arc::clone(&sessions), Arc::clone(&live_config), settings, Arc::clone(&metrics));
    let turns = Arc::new(turns);
    let context = ServiceContext {
        sessions: Arc::clone(&sessions),
        turns: Arc::clone(&turns),
        live_config: Arc::clone(&live_config),
    };
    let (leave, detach) = (CancellationToken::new(), CancellationToken::new());
    let link = LinkService {
        parts: Arc::new(LinkParts {
            brain_id: brain_id.clone(),
            context,
            connections: Connections::default(),
            store_prepared: readiness.prepared(),
            lifecycle: lifecycle.clone(),
            leave: leave.clone(),
            detach: detach.clone(),
            metrics: Arc::clone(&metrics),
        }),
    };

    let (sweeping, preparing, prepared) = (Arc::clone(&turns), Arc::clone(&sessions), lifecycle.clone());
    lifecycle.critical("sweep", async move {
        if readiness.prepare(&preparing, &prepared).await {
            sweep(sweeping).await;
        }
    });
    lifecycle.critical("settle", settle_unknown_outcomes(Arc::clone(&sessions)));
    if config.store.kind == StoreKind::Mongodb {
        // An embedded store has no other writers.
        lifecycle.critical("reconcile", reconcile(Arc::clone(&sessions)));
    }
    let link_metrics = Arc::clone(&metrics);
    let reloader = Reloader { file, live_config, endpoints, clock: wall_clock, metrics };
    lifecycle.critical("reload", reloader.run(&config, lifecycle.draining().clone())?);
    serve_link(&config, link, listener, &link_metrics, &lifecycle)?;
    tracing::info!(link = %link_address, ops = %ops_address, brain = brain_id, "listening");

    let drain = Duration::from_secs(config.shutdown.drain_seconds);
    lifecycle.spawn(drain_answers(Arc::clone(&turns), lifecycle.clone(), leave, detach, drain));
    Ok(lifecycle.shut_down(drain + HAND_OVER_TIME).await)
}

/// Creates missing tables and indexes.
///
/// # Errors
/// If the store cannot be reached or refuses.
pub async fn migrate(config: BrainConfig) -> anyhow::Result<bool> {
    let store = connect(&config, Access::Exclusive).await?;
    store.migrate().await?;
    tracing::info!("the store is up to date");
    Ok(true)
}

/// Reports what a user has used on each day from `from` on, oldest first, as one line of JSON per day.
///
/// # Errors
/// If the store cannot be reached.
pub async fn usage(config: BrainConfig, user: String, from: Day, mut say: impl FnMut(&str)) -> anyhow::Result<bool> {
    let store = connect(&config, Access::Shared).await?;
    let user = UserId::new(user);
    let mut next = Some(from);
    while let Some(from) = next {
        let days = store.user_usage(&user, from, USAGE_PAGE).await?;
        for day in &days {
            say(&day.to_json().to_string());
        }
        let full = days.len() >= USAGE_PAGE as usize;
        next = days.last().filter(|_| full).and_then(|last| last.day.next());
    }
    Ok(true)
}

async fn open_store(config: &BrainConfig, registry: &mut Registry) -> anyhow::Result<SharedStore> {
    let store = connect(config, Access::Exclusive).await?;
    let limit = Duration::from_millis(config.store.timeout_ms);
    Ok(Observed::wrap(store, limit, registry))
}

/// Whether other processes may use an embedded store at the same time. MongoDB is always shared.
#[derive(Clone, Copy)]
enum Access {
    /// A brain, or a command that writes.
    Exclusive,
    /// A command that only reads.
    Shared,
}

async fn connect(config: &BrainConfig, access: Access) -> anyhow::Result<SharedStore> {
    match config.store.kind {
        StoreKind::Sqlite => {
            let path = &config.store.sqlite.path;
            let opened = match access {
                Access::Exclusive => SqliteStore::open_exclusive(path),
                Access::Shared => SqliteStore::open(path),
            };
            let store = opened.with_context(|| format!("store.sqlite.path: {}", path.display()))?;
            Ok(Arc::new(store))
        }
        StoreKind::Mongodb => {
            let settings = &config.store.mongodb;
            let options = MongoOptions {
                uri: settings.uri.clone().context("store.mongodb.uri is missing")?,
                database: settings.database.clone(),
                max_pool_size: settings.max_pool_size,
                allow_standalone: settings.allow_standalone,
                timeout: Duration::from_millis(config.store.timeout_ms),
            };
            Ok(Arc::new(MongoStore::connect(options).await?))
        }
    }
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
