//! From an HTTP request to an accepted WebSocket, or to the response that rejects it. The order of the checks is part of
//! the contract (`docs/protocol.md`): cheap checks that protect the process come first, and a page that may not connect
//! learns nothing about its token.

mod address;
mod device;
pub mod origin;
mod proxy_warnings;
mod query;
mod single;
mod subprotocol;
mod token;
mod upgrade;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chatbox_shared::auth::{TokenError, TokenVerifier};
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::ConnectionId;
use http::header::HOST;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use ipnet::IpNet;
use rand::RngExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection::Accepted;
use crate::error;
use crate::limits::{AddressLimiter, LogBudget};
use crate::metrics::{HandshakeOutcome, Metrics};

use address::TrustedProxies;
use origin::OriginPolicy;
use proxy_warnings::ProxyWarnings;
use single::single;
use upgrade::UpgradeError;

/// Number of addresses whose handshake rate is remembered: about 10 MiB when all are in use.
const REMEMBERED_ADDRESSES: usize = 100_000;

/// Returns whether a brain can be reached.
pub type BrainReady = Box<dyn Fn() -> bool + Send + Sync>;

/// The settings of the checks.
#[derive(Debug, Clone)]
pub struct HandshakeSettings {
    /// WebSocket connections at the same time.
    pub max_connections: usize,
    /// Handshakes of one address per minute.
    pub handshakes_per_minute: u32,
    /// Handshakes of one address at once.
    pub handshake_burst: u32,
    /// The proxies whose X-Forwarded-For is used.
    pub trusted_proxies: Vec<IpNet>,
    /// Which pages may connect.
    pub origins: OriginPolicy,
    /// Whether the token may be the parameter `token` of the URL.
    pub allow_query_token: bool,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The WebSocket, with GET.
    Socket,
    /// The WebSocket, with another method.
    OtherMethod,
    /// Another path.
    UnknownPath,
}

/// The checks of every handshake.
pub struct Handshake {
    draining: CancellationToken,
    permits: Arc<Semaphore>,
    limiter: AddressLimiter,
    proxies: TrustedProxies,
    proxy_warnings: ProxyWarnings,
    origins: OriginPolicy,
    allow_query_token: bool,
    verifier: Arc<TokenVerifier>,
    brain_ready: BrainReady,
    metrics: Metrics,
    log_budget: LogBudget,
}

/// A handshake that passed every check.
#[derive(Debug)]
pub struct Admitted {
    /// The connection to serve.
    pub accepted: Accepted,
    /// Its share of `limits.max_connections`, returned when dropped.
    pub permit: OwnedSemaphorePermit,
    /// The response that opens the WebSocket.
    pub response: Response<Full<Bytes>>,
}

/// Why a handshake is rejected: the label of the metric, the reason and its details for the log, and the error for the client.
struct Rejection {
    outcome: HandshakeOutcome,
    reason: &'static str,
    token: Option<TokenError>,
    failure: Failure,
}

impl Rejection {
    fn new(outcome: HandshakeOutcome, code: ErrorCode, reason: &'static str) -> Self {
        Self { outcome, reason, token: None, failure: Failure::new(code) }
    }

    /// A rejection with a random hint when to retry, so that clients rejected together do not retry together.
    fn unavailable(outcome: HandshakeOutcome) -> Self {
        let mut rejection = Self::new(outcome, ErrorCode::Unavailable, outcome.as_str());
        rejection.failure.retry_after = Some(Duration::from_secs(rand::rng().random_range(1..=5)));
        rejection
    }

    fn rate_limited(wait: Duration) -> Self {
        let mut rejection = Self::new(HandshakeOutcome::RateLimited, ErrorCode::RateLimited, "handshake_rate");
        rejection.failure.retry_after = Some(wait);
        rejection
    }

    fn host() -> Self {
        let failure =
            Failure::with_message(ErrorCode::InvalidMessage, "The request must have exactly one Host header.");
        Self { outcome: HandshakeOutcome::NotWebSocket, reason: "host", token: None, failure }
    }

    /// Logs the rejection. Of the URL and the headers only the origin is logged, because they may hold tokens.
    fn log(&self, client: IpAddr, headers: &HeaderMap) {
        let origin = (self.outcome == HandshakeOutcome::Origin).then(|| origin::shown(headers));
        tracing::info!(
            %client,
            outcome = self.outcome.as_str(),
            reason = self.reason,
            detail = self.token.as_ref().map(tracing::field::display),
            origin,
            error_id = self.failure.error_id,
            "handshake rejected"
        );
    }

    fn unauthorized(reason: &'static str) -> Self {
        Self::new(HandshakeOutcome::Unauthorized, ErrorCode::Unauthorized, reason)
    }
}

impl From<TokenError> for Rejection {
    /// Without keys the token may be valid: the client tries again, and keeps its token.
    fn from(error: TokenError) -> Self {
        let rejection = match error {
            TokenError::KeysUnavailable => Self::unavailable(HandshakeOutcome::NoKeys),
            _ => Self::unauthorized(error.reason()),
        };
        Self { token: Some(error), ..rejection }
    }
}

impl From<UpgradeError> for Rejection {
    fn from(error: UpgradeError) -> Self {
        let outcome = HandshakeOutcome::NotWebSocket;
        match error {
            UpgradeError::NotRequested => Self::new(outcome, ErrorCode::UpgradeRequired, "not_websocket"),
            UpgradeError::Malformed => Self {
                outcome,
                reason: "malformed",
                token: None,
                failure: Failure::with_message(ErrorCode::InvalidMessage, "The WebSocket handshake is malformed."),
            },
        }
    }
}

impl Handshake {
    /// The checks with these settings.
    pub fn new(
        settings: HandshakeSettings,
        verifier: Arc<TokenVerifier>,
        brain_ready: BrainReady,
        draining: CancellationToken,
        metrics: Metrics,
    ) -> Self {
        let rate = f64::from(settings.handshakes_per_minute) / 60.0;
        Self {
            draining,
            permits: Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS))),
            limiter: AddressLimiter::new(rate, settings.handshake_burst, REMEMBERED_ADDRESSES),
            proxies: TrustedProxies(settings.trusted_proxies),
            proxy_warnings: ProxyWarnings::default(),
            origins: settings.origins,
            allow_query_token: settings.allow_query_token,
            verifier,
            brain_ready,
            log_budget: LogBudget::new(metrics.suppressed_log_lines.clone()),
            metrics,
        }
    }

    /// Returns a function that tells whether `limits.max_connections` is reached.
    pub fn full(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let permits = Arc::clone(&self.permits);
        move || permits.available_permits() == 0
    }

    /// Checks a request that came from `peer`.
    ///
    /// # Errors
    /// The response that rejects the request. The rejection was counted and logged.
    pub async fn admit<B>(
        &self,
        request: &Request<B>,
        target: Target,
        peer: IpAddr,
    ) -> Result<Admitted, Response<Full<Bytes>>> {
        let client = self.client(peer, request.headers());
        self.check(request, target, client).await.map_err(|rejection| {
            self.metrics.handshake(rejection.outcome);
            if self.log_budget.allows(client) {
                rejection.log(client, request.headers());
            }
            match rejection.outcome {
                HandshakeOutcome::Method => error::method_not_allowed("GET"),
                _ => error::response(&rejection.failure),
            }
        })
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.proxies.trusts(peer.to_canonical()) {
            self.proxy_warnings.untrusted_peer(peer, headers);
        }
        self.proxies.client(peer, headers)
    }

    async fn check<B>(&self, request: &Request<B>, target: Target, client: IpAddr) -> Result<Admitted, Rejection> {
        let (headers, query) = (request.headers(), request.uri().query());
        if self.draining.is_cancelled() {
            return Err(Rejection::unavailable(HandshakeOutcome::Draining));
        }
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| Rejection::unavailable(HandshakeOutcome::Full))?;
        self.limiter.take(client, Instant::now()).map_err(|wait| {
            self.proxy_warnings.limited(client);
            Rejection::rate_limited(wait)
        })?;
        if !matches!(single(headers.get_all(HOST).iter()), Ok(Some(_))) {
            return Err(Rejection::host());
        }
        match target {
            Target::Socket => {}
            Target::OtherMethod => {
                return Err(Rejection::new(HandshakeOutcome::Method, ErrorCode::InvalidMessage, "method"));
            }
            Target::UnknownPath => {
                return Err(Rejection::new(HandshakeOutcome::NotFound, ErrorCode::NotFound, "path"));
            }
        }
        let accept_key = upgrade::check(request.version(), headers)?;
        self.origins
            .check(headers)
            .map_err(|error| Rejection::new(HandshakeOutcome::Origin, ErrorCode::OriginNotAllowed, error.reason()))?;
        let token = token::find(headers, query, self.allow_query_token)
            .map_err(|error| Rejection::unauthorized(error.reason()))?;
        let verified = self.verifier.verify(&token).await?;
        let device = device::device(query).map_err(|error| Rejection {
            outcome: HandshakeOutcome::Parameter,
            reason: "device",
            token: None,
            failure: Failure::invalid("device", error.to_string()),
        })?;
        if !(self.brain_ready)() {
            return Err(Rejection::unavailable(HandshakeOutcome::NoBrain));
        }
        let accepted = Accepted { id: ConnectionId::generate(), verified, device, remote_ip: client };
        Ok(Admitted { accepted, permit, response: upgrade::accept(headers, accept_key) })
    }
}
