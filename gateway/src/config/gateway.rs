//! `[gateway]`: the address for clients, the path prefix and the name of the process.

use std::net::SocketAddr;

use chatbox_shared::config::{ConfigErrors, is_plain, listen_address, process_name};
use serde::Deserialize;

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
    pub(super) fn validate(&self, errors: &mut ConfigErrors) {
        let prefix = &self.path_prefix;
        let valid = prefix.is_empty()
            || (prefix.starts_with('/')
                && !prefix.ends_with('/')
                && !prefix.contains("//")
                && is_plain(prefix, "/._~-"));
        let reason =
            "must be empty, or begin with \"/\", not end with \"/\", and have only letters, digits and / . _ ~ -";
        errors.ensure(valid, "gateway.path_prefix", reason);
        process_name(errors, "gateway.id", &self.id);
    }
}
