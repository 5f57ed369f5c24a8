//! The operations server: `/healthz` (the process runs), `/readyz` (its dependencies are available) and `/metrics`.
//! It must not be public. It responds until the end of a shutdown.

mod process;
mod ready;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use process::register_process_metrics;
use ready::Check;

use crate::config::listen_address;
use crate::lifecycle::Lifecycle;

/// Further connections wait. Probes and scrapers are few.
const MAX_CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause of the accept loop after an error, such as no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The section `[ops]` of both services.
#[derive(Debug, Clone, Deserialize)]
pub struct OpsSettings {
    /// The address of the operations server.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
}

/// The operations server, bound but not serving yet.
pub struct Ops {
    listener: TcpListener,
    checks: Vec<Check>,
    registry: Registry,
}

impl Ops {
    /// Binds the address (port 0: any free port). Returns the bound address too.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> std::io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((Self { listener, checks: Vec::new(), registry: Registry::default() }, bound))
    }

    /// The metrics that `/metrics` shows.
    #[must_use]
    pub fn metrics(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Adds a named check. The process is ready if every check passes within its `limit`. `/readyz` shows the reason of a
    /// failed check: it may name hosts, never secrets.
    #[must_use]
    pub fn check<F, R>(mut self, name: &'static str, limit: Duration, run: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push(Check::new(name, limit, run));
        self
    }

    /// Serves until the lifecycle's hard stop. [`Lifecycle::shut_down`] causes it after the last task, so probes and scrapers
    /// get responses during the whole drain.
    pub fn serve(self, lifecycle: &Lifecycle) {
        let state =
            Arc::new(State { checks: self.checks, registry: self.registry, draining: lifecycle.draining().clone() });
        let stopping = lifecycle.stopping().clone();
        // Not tracked: shut_down stops this task only after every tracked task has ended.
        #[expect(clippy::disallowed_methods, reason = "the operations server must outlive every tracked task")]
        let _server = tokio::spawn(async move {
            tokio::select! {
                () = accept(&self.listener, &state) => {}
                () = stopping.cancelled() => {}
            }
        });
    }
}

struct State {
    checks: Vec<Check>,
    registry: Registry,
    draining: CancellationToken,
}

async fn accept(listener: &TcpListener, state: &Arc<State>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // The connections end when the set is dropped, together with the server.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let state = state.clone();
                connections.spawn(async move {
                    connection(socket, state).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the operations port cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, state: Arc<State>) {
    let service = hyper::service::service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(state.answer(&request).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = server.serve_connection(TokioIo::new(socket), service).await {
        tracing::debug!(%error, "a connection to the operations port failed");
    }
}

impl State {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let known = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
        if known && !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method not allowed. Use GET.\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/healthz" => respond(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => {
                let report = ready::run(&self.checks, self.draining.is_cancelled()).await;
                let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                respond(status, "application/json", report.to_json())
            }
            "/metrics" => {
                let mut text = String::new();
                match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
                    Ok(()) => respond(StatusCode::OK, OPENMETRICS, text),
                    Err(error) => {
                        tracing::error!(%error, "cannot encode the metrics");
                        respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "The metrics cannot be encoded.\n")
                    }
                }
            }
            _ => respond(StatusCode::NOT_FOUND, TEXT, "Not found. Paths: /healthz, /readyz, /metrics.\n"),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
