//! The section `[link.tls]` as it is configured. What is made of it is in the parent module.

use std::path::PathBuf;

use serde::Deserialize;

/// The section `[link.tls]` of both services. All three files, or none.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct TlsSettings {
    /// The CA that signed the other side's certificate.
    pub ca_file: PathBuf,
    /// This side's certificate, followed by its chain up to the CA, if any.
    pub cert_file: PathBuf,
    /// This side's private key.
    pub key_file: PathBuf,
    /// The name in the brain's certificate. Only the gateway uses it.
    #[serde(default)]
    pub server_name: String,
    /// The names of gateways, one of which must be in a gateway's certificate. Only the brain uses them.
    #[serde(default)]
    pub allowed_client_names: Vec<String>,
}

impl TlsSettings {
    /// True if any of the three files is set.
    pub fn is_set(&self) -> bool {
        [&self.ca_file, &self.cert_file, &self.key_file].iter().any(|file| !file.as_os_str().is_empty())
    }
}
