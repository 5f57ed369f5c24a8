//! Mutual TLS on the link between gateway and brain, from PEM files. Each side shows a certificate and checks the other
//! side's certificate against its CA file; a brain also checks the name in it. The files are read again when they change.

mod server;
mod live;
mod pem;
mod settings;

use prometheus_client::metrics::gauge::Gauge;
use rustls::ServerConfig;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::config::ConfigErrors;
use crate::lifecycle::Lifecycle;

pub use live::LiveTls;
pub use server::accept_tls;
pub use settings::TlsSettings;

impl TlsSettings {
    /// Reports every missing or unusable file, and a link that is neither encrypted nor declared `insecure`.
    pub fn validate(&self, insecure: bool, errors: &mut ConfigErrors) {
        match (self.is_set(), insecure) {
            (false, false) => {
                errors.add("link", "set link.tls, or link.insecure = true if no one else can read the traffic");
            }
            (false, true) => {}
            (true, true) => errors.add("link.insecure", "is true, but link.tls is set; set only one of them"),
            (true, false) => {
                if let Err(found) = pem::read(self) {
                    errors.append(found);
                }
            }
        }
    }

    /// Reports missing and invalid names of gateways, where TLS is on. For a brain.
    pub fn validate_client_names(&self, errors: &mut ConfigErrors) {
        if self.is_set()
            && let Err(found) = server::client_names(&self.allowed_client_names)
        {
            errors.append(found);
        }
    }

    /// The TLS configuration of a brain: a gateway must show a certificate signed by the CA, with one of
    /// `allowed_client_names` as a subject alternative name. `expiry` shows the Unix time at which this side's certificate
    /// expires.
    ///
    /// # Errors
    /// Every file that cannot be read or used, and invalid names.
    pub fn server(&self, expiry: Gauge, lifecycle: &Lifecycle) -> Result<LiveTls<ServerConfig>, ConfigErrors> {
        let build: live::Build<ServerConfig> =
            |settings, _, parsed| server::config(parsed, server::client_names(&settings.allowed_client_names)?);
        live::start(self, build, expiry, lifecycle)
    }

    /// The TLS configuration of a gateway: the brain must show a certificate signed by the CA, with `server_name` in it.
    /// `expiry` shows the Unix time at which this side's certificate expires.
    ///
    /// # Errors
    /// Every file that cannot be read or used.
    pub fn client(&self, expiry: Gauge, lifecycle: &Lifecycle) -> Result<LiveTls<ClientTlsConfig>, ConfigErrors> {
        let build: live::Build<ClientTlsConfig> = |settings, pem, _| {
            Ok(ClientTlsConfig::new()
                .identity(Identity::from_pem(&pem.cert, &pem.key))
                .ca_certificate(Certificate::from_pem(&pem.ca))
                .domain_name(&settings.server_name))
        };
        live::start(self, build, expiry, lifecycle)
    }
}

#[cfg(test)]
mod tests;
