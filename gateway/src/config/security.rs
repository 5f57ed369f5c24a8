//! `[security]`: which pages may connect, and which proxies are trusted.

use std::net::IpAddr;

use chatbox_shared::config::ConfigErrors;
use ipnet::IpNet;
use serde::Deserialize;

use crate::handshake::origin::OriginRule;

/// `[security]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecuritySection {
    /// The origins that may connect. Empty: only the gateway's own host.
    pub allowed_origins: Vec<OriginRule>,
    /// Whether requests without an Origin header are rejected.
    pub require_origin: bool,
    /// Whether the rule `*` is allowed.
    pub insecure_any_origin: bool,
    /// The proxies whose X-Forwarded-For is used.
    pub trusted_proxies: Vec<ProxyNetwork>,
}

/// An address range, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProxyNetwork(pub IpNet);

impl TryFrom<String> for ProxyNetwork {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| format!("{text:?} must be an IP address or an address range such as 10.0.0.0/8"))
    }
}

impl SecuritySection {
    /// The networks of the trusted proxies.
    pub(crate) fn proxy_networks(&self) -> Vec<IpNet> {
        self.trusted_proxies.iter().map(|network| network.0).collect()
    }

    pub(super) fn validate(&self, errors: &mut ConfigErrors) {
        if self.any_origin() {
            let key = "security.allowed_origins";
            errors.ensure(self.allowed_origins.len() == 1, key, "\"*\" must be the only entry");
            errors.ensure(self.insecure_any_origin, key, "\"*\" requires security.insecure_any_origin = true");
        }
    }

    /// Whether every page may connect.
    pub(super) fn any_origin(&self) -> bool {
        self.allowed_origins.contains(&OriginRule::Any)
    }
}
