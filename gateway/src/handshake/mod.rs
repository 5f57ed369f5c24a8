//! From an HTTP request to an accepted WebSocket, or to the one answer that refuses it. The order of the checks is part
//! of the contract (docs/protocol.md): what is cheap and protects the process comes first, and nothing is said about a
//! token to a page that may not connect at all.

mod address;
pub mod origin;
mod token;
mod upgrade;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chatbox_shared::auth::TokenVerifier;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::ConnectionId;
use http::{Request, Response};
use http_body_util::Full;
use rand::RngExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::GatewaySettings;
use crate::connection::Accepted;
use crate::error;
use crate::limits::AddressLimiter;
use crate::metrics::{Handshake as Outcome, Metrics};

use address::TrustedProxies;
use origin::OriginPolicy;
use upgrade::NoUpgrade;

/// Addresses whose handshake rate is remembered: about 10 MiB when full.
const REMEMBERED_ADDRESSES: usize = 100_000;

/// Tells whether any brain can be reached now.
pub type BrainReady = Box<dyn Fn() -> bool + Send + Sync>;

/// What every handshake is checked against.
pub struct Handshake {
    draining: CancellationToken,
    places: Arc<Semaphore>,
    limiter: AddressLimiter,
    proxies: TrustedProxies,
    origins: OriginPolicy,
    allow_query_token: bool,
    verifier: Arc<TokenVerifier>,
    brain_ready: BrainReady,
    metrics: Metrics,
}

/// A handshake that passed.
#[derive(Debug)]
pub struct Admitted {
    /// The connection to be.
    pub accepted: Accepted,
    /// Its place among `limits.max_connections`; given back when dropped.
    pub place: OwnedSemaphorePermit,
    /// The answer that opens the WebSocket.
    pub response: Response<Full<Bytes>>,
}

/// Why a handshake failed: what is counted, what is logged, what is answered.
struct Refusal {
    outcome: Outcome,
    reason: &'static str,
    failure: Failure,
}

impl Refusal {
    fn new(outcome: Outcome, code: ErrorCode, reason: &'static str) -> Self {
        Self { outcome, reason, failure: Failure::new(code) }
    }

    /// Clients who are sent away together should not come back together.
    fn unavailable(outcome: Outcome) -> Self {
        let mut refusal = Self::new(outcome, ErrorCode::Unavailable, outcome.as_str());
        refusal.failure.retry_after = Some(Duration::from_secs(rand::rng().random_range(1..=5)));
        refusal
    }
}

impl Handshake {
    /// The checks as the settings want them, for `max_connections` connections at once.
    pub fn new(
        settings: &GatewaySettings,
        max_connections: usize,
        verifier: Arc<TokenVerifier>,
        brain_ready: BrainReady,
        draining: CancellationToken,
        metrics: Metrics,
    ) -> Self {
        let (limits, security) = (&settings.limits, &settings.security);
        let rate = f64::from(limits.handshakes_per_minute) / 60.0;
        Self {
            draining,
            places: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))),
            limiter: AddressLimiter::new(rate, limits.handshake_burst, REMEMBERED_ADDRESSES),
            proxies: TrustedProxies(security.trusted_proxies.iter().map(|network| network.0).collect()),
            origins: OriginPolicy { allowed: security.allowed_origins.clone(), required: security.require_origin },
            allow_query_token: settings.auth.allow_query_token,
            verifier,
            brain_ready,
            metrics,
        }
    }

    /// Checks a GET request for the WebSocket, which came from `peer`.
    ///
    /// # Errors
    /// The answer that refuses it; it has been counted and logged.
    pub async fn admit<B>(&self, request: &Request<B>, peer: IpAddr) -> Result<Admitted, Response<Full<Bytes>>> {
        let client = self.proxies.client(peer, request.headers());
        self.check(request, client).await.map_err(|refusal| {
            self.metrics.handshake(refusal.outcome);
            let Refusal { outcome, reason, failure } = refusal;
            // Never the URL or a header: tokens are in them.
            tracing::info!(%client, outcome = outcome.as_str(), reason, error_id = failure.error_id, "handshake refused");
            error::response(&failure)
        })
    }

    async fn check<B>(&self, request: &Request<B>, client: IpAddr) -> Result<Admitted, Refusal> {
        let (headers, query) = (request.headers(), request.uri().query());
        if self.draining.is_cancelled() {
            return Err(Refusal::unavailable(Outcome::Draining));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::unavailable(Outcome::Full))?;
        self.limiter.take(client, Instant::now()).map_err(|wait| {
            let mut refusal = Refusal::new(Outcome::RateLimited, ErrorCode::RateLimited, "handshake_rate");
            refusal.failure.retry_after = Some(wait);
            refusal
        })?;
        let accept_key = upgrade::check(request.version(), headers).map_err(|fault| match fault {
            NoUpgrade::Wanted => Refusal::new(Outcome::NotWebSocket, ErrorCode::UpgradeRequired, "not_websocket"),
            NoUpgrade::Malformed => Refusal {
                outcome: Outcome::NotWebSocket,
                reason: "malformed",
                failure: Failure::with_message(ErrorCode::InvalidMessage, "The WebSocket handshake is malformed."),
            },
        })?;
        self.origins
            .check(headers)
            .map_err(|fault| Refusal::new(Outcome::Origin, ErrorCode::OriginNotAllowed, fault.reason()))?;
        let unauthorized = |reason| Refusal::new(Outcome::Unauthorized, ErrorCode::Unauthorized, reason);
        let token =
            token::find(headers, query, self.allow_query_token).map_err(|fault| unauthorized(fault.reason()))?;
        let verified = self.verifier.verify(&token).await.map_err(|fault| unauthorized(fault.reason()))?;
        let device = token::device(query).map_err(|fault| Refusal {
            outcome: Outcome::Parameter,
            reason: "device",
            failure: Failure::invalid("device", fault.to_string()),
        })?;
        if !(self.brain_ready)() {
            return Err(Refusal::unavailable(Outcome::NoBrain));
        }
        let accepted = Accepted { id: ConnectionId::generate(), verified, device, remote_ip: client };
        Ok(Admitted { accepted, place, response: upgrade::accept(headers, accept_key) })
    }
}
