//! Mutual TLS on the link between gateway and brain, from PEM files. Each side shows a
//! certificate and checks the other side's certificate against its CA file.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use crate::config::ConfigErrors;

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
}

const CA: &str = "link.tls.ca_file";
const CERT: &str = "link.tls.cert_file";
const KEY: &str = "link.tls.key_file";

/// The three files, read and checked.
struct Pem {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl TlsSettings {
    /// True if any of the three files is set.
    pub fn is_set(&self) -> bool {
        [&self.ca_file, &self.cert_file, &self.key_file].iter().any(|file| !file.as_os_str().is_empty())
    }

    /// Reports every missing or unusable file, and a link that is neither encrypted nor declared `insecure`.
    pub fn validate(&self, insecure: bool, errors: &mut ConfigErrors) {
        match (self.is_set(), insecure) {
            (false, false) => {
                errors.add("link", "set link.tls, or link.insecure = true if no one else can read the traffic");
            }
            (false, true) => {}
            (true, true) => errors.add("link.insecure", "is true, but link.tls is set; set only one of them"),
            (true, false) => {
                if let Err(found) = self.read() {
                    errors.append(found);
                }
            }
        }
    }

    /// The TLS configuration of a brain: a gateway must show a certificate signed by the CA.
    ///
    /// # Errors
    /// Every file that cannot be read or used.
    pub fn server(&self) -> Result<ServerTlsConfig, ConfigErrors> {
        let pem = self.read()?;
        Ok(ServerTlsConfig::new()
            .identity(Identity::from_pem(pem.cert, pem.key))
            .client_ca_root(Certificate::from_pem(pem.ca)))
    }

    /// The TLS configuration of a gateway: the brain must show a certificate signed by the CA, with `server_name` in it.
    ///
    /// # Errors
    /// Every file that cannot be read or used.
    pub fn client(&self) -> Result<ClientTlsConfig, ConfigErrors> {
        let pem = self.read()?;
        Ok(ClientTlsConfig::new()
            .identity(Identity::from_pem(pem.cert, pem.key))
            .ca_certificate(Certificate::from_pem(pem.ca))
            .domain_name(&self.server_name))
    }

    fn read(&self) -> Result<Pem, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let mut add = |key: &str, path: &Path, reason: String| {
            let path = if path.as_os_str().is_empty() { String::new() } else { format!("{}: ", path.display()) };
            errors.add(key, format!("{path}{reason}"));
        };
        let ca = certificates(&self.ca_file).map_err(|reason| add(CA, &self.ca_file, reason));
        let cert = certificates(&self.cert_file).map_err(|reason| add(CERT, &self.cert_file, reason));
        let key = private_key(&self.key_file).map_err(|reason| add(KEY, &self.key_file, reason));
        let (Ok((ca, _)), Ok((cert, chain)), Ok((key, parsed))) = (ca, cert, key) else { return Err(errors) };
        if CertifiedKey::from_der(chain, parsed, &rustls::crypto::aws_lc_rs::default_provider()).is_err() {
            let reason = "is not the key of the certificate in link.tls.cert_file, or its kind is not supported";
            add(KEY, &self.key_file, reason.to_owned());
            return Err(errors);
        }
        Ok(Pem { ca, cert, key })
    }
}

/// A file's bytes and the certificates in it, or why it cannot be used.
fn certificates(path: &Path) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), String> {
    let bytes = read(path)?;
    let parsed = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| "is not valid PEM from beginning to end")?;
    if parsed.is_empty() {
        return Err("contains no certificate in PEM form".to_owned());
    }
    let mut roots = rustls::RootCertStore::empty();
    if parsed.iter().any(|certificate| roots.add(certificate.clone()).is_err()) {
        return Err("contains a certificate that is not X.509".to_owned());
    }
    Ok((bytes, parsed))
}

/// A file's bytes and the private key in it, or why it cannot be used.
fn private_key(path: &Path) -> Result<(Vec<u8>, PrivateKeyDer<'static>), String> {
    let bytes = read(path)?;
    let parsed = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| "contains no private key in PEM form")?;
    Ok((bytes, parsed))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    if path.as_os_str().is_empty() {
        return Err("missing; link.tls needs all three files".to_owned());
    }
    std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests;
