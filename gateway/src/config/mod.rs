//! The settings of the gateway: the sections of `default.toml`, typed and validated. Every part of the gateway has its own
//! settings type; this module makes them from the sections.

mod auth;
mod brain;
mod gateway;
mod limits;
mod security;

use std::time::Duration;

use chatbox_link::LinkSettings;
use chatbox_shared::config::{ConfigErrors, Settings, same_address, within};
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::ops::OpsSettings;
use chatbox_shared::telemetry::LogSettings;
use prometheus_client::metrics::gauge::Gauge;
use serde::Deserialize;
use uuid::Uuid;

pub use auth::AuthSection;
pub use brain::{BrainSection, LinkSection};
pub use gateway::GatewaySection;
pub use limits::LimitsSection;
pub use security::{ProxyNetwork, SecuritySection};

use crate::connection::ConnectionSettings;
use crate::handshake::HandshakeSettings;
use crate::handshake::origin::OriginPolicy;

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySettings {
    /// The process as a whole.
    pub gateway: GatewaySection,
    /// The operations port.
    pub ops: OpsSettings,
    /// The endpoints of the brains.
    pub brain: BrainSection,
    /// The protection of the link to the brains.
    pub link: LinkSection,
    /// Origins and proxies.
    pub security: SecuritySection,
    /// Tokens.
    pub auth: AuthSection,
    /// Sizes, rates and time limits.
    pub limits: LimitsSection,
    /// Pings and the idle timeout.
    pub heartbeat: HeartbeatSection,
    /// The drain.
    pub shutdown: ShutdownSection,
    /// The log.
    pub log: LogSettings,
}

/// `[heartbeat]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatSection {
    /// Milliseconds between two pings.
    pub interval_ms: u64,
}

/// `[shutdown]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSection {
    /// Seconds over which a drain closes the connections.
    pub drain_seconds: u64,
}

impl Settings for GatewaySettings {
    const DEFAULTS: &'static str = include_str!("../../default.toml");
    const SECRETS: &'static [&'static str] = &["auth.hs256_secret"];

    fn validate(&self, errors: &mut ConfigErrors) {
        self.gateway.validate(errors);
        let listen = self.gateway.listen;
        let reason = format!("must not be the address of gateway.listen ({listen})");
        errors.ensure(!same_address(listen, self.ops.listen), "ops.listen", reason);
        self.brain.validate(self.link.tls.is_set(), errors);
        self.link.validate(errors);
        self.security.validate(errors);
        self.auth.validate(errors);
        self.limits.validate(errors);
        within(errors, "heartbeat.interval_ms", self.heartbeat.interval_ms, 100, 300_000);
        within(errors, "shutdown.drain_seconds", self.shutdown.drain_seconds, 0, 3600);
        self.log.validate(errors);
    }
}

impl GatewaySettings {
    /// The settings of the handshake, for this number of connections.
    pub fn handshake(&self, max_connections: usize) -> HandshakeSettings {
        let (limits, security) = (&self.limits, &self.security);
        HandshakeSettings {
            max_connections,
            handshakes_per_minute: limits.handshakes_per_minute,
            handshake_burst: limits.handshake_burst,
            trusted_proxies: security.proxy_networks(),
            origins: OriginPolicy { allowed: security.allowed_origins.clone(), required: security.require_origin },
            allow_query_token: self.auth.allow_query_token,
        }
    }

    /// The settings of the links to the brains. `certificate_expiry` is the metric of this gateway's certificate.
    ///
    /// # Errors
    /// If a file of `link.tls` cannot be used.
    pub fn links(&self, certificate_expiry: Gauge, lifecycle: &Lifecycle) -> anyhow::Result<LinkSettings> {
        let tls = &self.link.tls;
        let id = &self.gateway.id;
        let random = || format!("gateway-{}", &Uuid::new_v4().simple().to_string()[..8]);
        Ok(LinkSettings {
            name: if id.is_empty() { random() } else { id.clone() },
            endpoints: self.brain.parsed_endpoints()?,
            resolve_interval: self.brain.resolve_interval(),
            connect_timeout: self.brain.connect_timeout(),
            tls: tls.is_set().then(|| tls.client(certificate_expiry, lifecycle)).transpose()?,
        })
    }

    /// The settings of every connection.
    pub fn connection(&self) -> ConnectionSettings {
        let limits = &self.limits;
        ConnectionSettings {
            max_frame_bytes: limits.max_frame_bytes,
            max_invalid_frames: limits.max_invalid_frames,
            requests_per_second: limits.requests_per_second,
            request_burst: limits.request_burst,
            max_in_flight: limits.max_in_flight,
            outbound_queue_bytes: limits.outbound_queue_bytes,
            heartbeat_interval: Duration::from_millis(self.heartbeat.interval_ms),
        }
    }

    /// Logs a warning for every setting that makes the gateway less secure.
    pub fn warn_if_insecure(&self) {
        if self.security.any_origin() {
            tracing::warn!("security.insecure_any_origin is on: every web page may connect");
        }
        if self.link.insecure {
            tracing::warn!("link.insecure is on: the link to the brains is not encrypted");
        }
        if self.auth.is_jwks_insecure() {
            tracing::warn!("auth.insecure_jwks_url is on: the keys of tokens are read over an unprotected connection");
        }
        if self.auth.allow_query_token {
            tracing::warn!("auth.allow_query_token is on: tokens in URLs appear in the logs of proxies");
        }
    }
}

#[cfg(test)]
mod tests;
