//! `[brain]` and `[link]`: where the brains are, and how the link to them is protected.

use std::time::Duration;

use chatbox_link::{BrainEndpoint, InvalidEndpoint};
use chatbox_shared::config::{ConfigErrors, within};
use chatbox_shared::tls::TlsSettings;
use serde::Deserialize;

/// `[brain]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrainSection {
    /// `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// Milliseconds between two look-ups of the names.
    pub resolve_interval_ms: u64,
    /// The time limit of a connection attempt, in milliseconds.
    pub connect_timeout_ms: u64,
}

/// `[link]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSection {
    /// Whether the link is plaintext.
    pub insecure: bool,
    /// Mutual TLS.
    pub tls: TlsSettings,
}

impl BrainSection {
    pub(super) fn validate(&self, tls: bool, errors: &mut ConfigErrors) {
        errors.ensure(!self.endpoints.is_empty(), "brain.endpoints", "must have at least one endpoint");
        for (n, endpoint) in self.endpoints.iter().enumerate() {
            let key = format!("brain.endpoints.{n}");
            match endpoint.parse::<BrainEndpoint>() {
                Ok(endpoint) if endpoint.is_tls() && !tls => errors.add(key, "https:// requires link.tls"),
                Ok(endpoint) if !endpoint.is_tls() && tls => {
                    errors.add(key, "must be https://, because link.tls is set")
                }
                Ok(_) => {}
                Err(error) => errors.add(key, error),
            }
        }
        within(errors, "brain.resolve_interval_ms", self.resolve_interval_ms, 100, 600_000);
        within(errors, "brain.connect_timeout_ms", self.connect_timeout_ms, 100, 60_000);
    }

    /// The parsed endpoints.
    pub(super) fn parsed_endpoints(&self) -> Result<Vec<BrainEndpoint>, InvalidEndpoint> {
        self.endpoints.iter().map(|endpoint| endpoint.parse()).collect()
    }

    pub(super) fn resolve_interval(&self) -> Duration {
        Duration::from_millis(self.resolve_interval_ms)
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }
}

impl LinkSection {
    pub(super) fn validate(&self, errors: &mut ConfigErrors) {
        self.tls.validate(self.insecure, errors);
        let named = !self.tls.is_set() || !self.tls.server_name.is_empty();
        errors.ensure(named, "link.tls.server_name", "must be the name in the brain's certificate");
    }
}
