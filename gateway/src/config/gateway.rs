//! `[gateway]`: the address for clients, the path prefix and the name of the process.

use std::net::SocketAddr;

use chatbox_shared::config::{ConfigErrors, listen_address};
use serde::Deserialize;

use super::check::is_plain;

/// `[gateway]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySection {
    /// The address for clients.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// The prefix of every public path: empty, or `/…` without a slash at its end.
    pub path_prefix: String,
    /// The name of this process. Empty: a random name.
    pub id: String,
}

impl GatewaySection {
    pub(super) fn validate(&self, ops: SocketAddr, faults: &mut ConfigErrors) {
        let prefix = &self.path_prefix;
        let valid = prefix.is_empty()
            || (prefix.starts_with('/')
                && !prefix.ends_with('/')
                && !prefix.contains("//")
                && is_plain(prefix, "/._~-"));
        let reason =
            "must be empty, or begin with \"/\", not end with \"/\", and have only letters, digits and / . _ ~ -";
        faults.ensure(valid, "gateway.path_prefix", reason);
        let valid = self.id.len() <= 64 && is_plain(&self.id, "._-");
        faults.ensure(valid, "gateway.id", "must have at most 64 letters, digits and . _ -");
        let reason = format!("must not use the address of ops.listen ({ops})");
        faults.ensure(!conflict(self.listen, ops), "gateway.listen", reason);
    }
}

/// Whether two addresses cannot be bound at the same time. Port 0 stands for any free port.
fn conflict(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_ip
}
