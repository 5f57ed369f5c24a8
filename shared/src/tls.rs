//! Mutual TLS on the link between gateway and brain, from PEM files. Both sides show a certificate; both check the
//! other's against the same kind of CA file.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use crate::config::Faults;

/// The section `[link.tls]` of both services. All three files, or none.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct TlsSettings {
    /// The CA the other side's certificate must be signed by.
    pub ca_file: PathBuf,
    /// This side's certificate, followed by the chain up to the CA where there is one.
    pub cert_file: PathBuf,
    /// This side's private key.
    pub key_file: PathBuf,
    /// The name the brain's certificate must carry. The gateway's alone.
    #[serde(default)]
    pub server_name: String,
}

/// What is wrong with the PEM files; displays with the key of the setting and the path.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {}: {reason}", path.display())]
pub struct TlsError {
    /// The dotted key of the setting.
    pub key: &'static str,
    /// The file it names.
    pub path: PathBuf,
    /// What is wrong, never a part of the file.
    pub reason: String,
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
    /// Is TLS turned on?
    pub fn is_set(&self) -> bool {
        [&self.ca_file, &self.cert_file, &self.key_file].iter().any(|file| !file.as_os_str().is_empty())
    }

    /// Reports missing or unusable files, and a link that is neither encrypted nor declared `insecure`.
    pub fn validate(&self, insecure: bool, faults: &mut Faults) {
        match (self.is_set(), insecure) {
            (false, false) => faults.add("link", "set link.tls, or link.insecure = true where nobody else can listen"),
            (false, true) => {}
            (true, true) => faults.add("link.insecure", "true, although link.tls is set; set only one of them"),
            (true, false) => {
                let files = [(CA, &self.ca_file), (CERT, &self.cert_file), (KEY, &self.key_file)];
                let mut missing = files.iter().filter(|(_, file)| file.as_os_str().is_empty()).peekable();
                if missing.peek().is_none()
                    && let Err(error) = self.read()
                {
                    faults.add(error.key, format!("{}: {}", error.path.display(), error.reason));
                }
                missing.for_each(|(key, _)| faults.add(*key, "missing; link.tls needs all of its three files"));
            }
        }
    }

    /// What a brain serves the link with: gateways must show a certificate of the CA.
    ///
    /// # Errors
    /// Where a file cannot be read or is not what it should be.
    pub fn server(&self) -> Result<ServerTlsConfig, TlsError> {
        let pem = self.read()?;
        Ok(ServerTlsConfig::new()
            .identity(Identity::from_pem(pem.cert, pem.key))
            .client_ca_root(Certificate::from_pem(pem.ca)))
    }

    /// What a gateway connects with: the brain must show a certificate of the CA with `server_name` in it.
    ///
    /// # Errors
    /// Where a file cannot be read or is not what it should be.
    pub fn client(&self) -> Result<ClientTlsConfig, TlsError> {
        let pem = self.read()?;
        Ok(ClientTlsConfig::new()
            .identity(Identity::from_pem(pem.cert, pem.key))
            .ca_certificate(Certificate::from_pem(pem.ca))
            .domain_name(&self.server_name))
    }

    fn read(&self) -> Result<Pem, TlsError> {
        let (ca, _) = certificates(CA, &self.ca_file)?;
        let (cert, chain) = certificates(CERT, &self.cert_file)?;
        let fail = |reason: &str| TlsError { key: KEY, path: self.key_file.clone(), reason: reason.to_owned() };
        let key = read(KEY, &self.key_file)?;
        let parsed = PrivateKeyDer::from_pem_slice(&key).map_err(|_| fail("holds no private key in PEM form"))?;
        CertifiedKey::from_der(chain, parsed, &rustls::crypto::aws_lc_rs::default_provider()).map_err(|_| {
            fail("is not the key of the certificate in link.tls.cert_file, or of a kind that is not supported")
        })?;
        Ok(Pem { ca, cert, key })
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), TlsError> {
    let bytes = read(key, path)?;
    let fail = |reason: &str| TlsError { key, path: path.to_owned(), reason: reason.to_owned() };
    let parsed = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| fail("is damaged: not PEM from beginning to end"))?;
    if parsed.is_empty() {
        return Err(fail("holds no certificate in PEM form"));
    }
    let mut roots = rustls::RootCertStore::empty();
    if parsed.iter().any(|certificate| roots.add(certificate.clone()).is_err()) {
        return Err(fail("holds something that is no X.509 certificate"));
    }
    Ok((bytes, parsed))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError {
        key,
        path: path.to_owned(),
        reason: format!("cannot be read: {error}"),
    })
}

#[cfg(test)]
mod tests;
