//! The PEM files of one side of the link: read, parsed and checked against each other.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::settings::TlsSettings;
use crate::config::ConfigErrors;

pub(super) const CA: &str = "link.tls.ca_file";
pub(super) const CERT: &str = "link.tls.cert_file";
pub(super) const KEY: &str = "link.tls.key_file";

/// The three files. Two values are equal if the files have the same bytes.
#[derive(PartialEq, Eq)]
pub(super) struct Pem {
    pub(super) ca: Vec<u8>,
    pub(super) cert: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// The contents of the three files.
pub(super) struct Parsed {
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// Reads and checks the files.
///
/// # Errors
/// Every file that cannot be read or used.
pub(super) fn read(settings: &TlsSettings) -> Result<(Pem, Parsed), ConfigErrors> {
    let mut errors = ConfigErrors::default();
    let mut add = |key: &str, path: &Path, reason: String| {
        let path = if path.as_os_str().is_empty() { String::new() } else { format!("{}: ", path.display()) };
        errors.add(key, format!("{path}{reason}"));
    };
    let ca = certificates(&settings.ca_file).map_err(|reason| add(CA, &settings.ca_file, reason));
    let cert = certificates(&settings.cert_file).map_err(|reason| add(CERT, &settings.cert_file, reason));
    let key = private_key(&settings.key_file).map_err(|reason| add(KEY, &settings.key_file, reason));
    let (Ok((ca, authorities)), Ok((cert, chain)), Ok((key, parsed))) = (ca, cert, key) else { return Err(errors) };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if CertifiedKey::from_der(chain.clone(), parsed.clone_key(), &provider).is_err() {
        let reason = "is not the key of the certificate in link.tls.cert_file, or its kind is not supported";
        add(KEY, &settings.key_file, reason.to_owned());
        return Err(errors);
    }
    Ok((Pem { ca, cert, key }, Parsed { authorities, chain, key: parsed }))
}

impl Parsed {
    /// The Unix time in seconds at which the first certificate of the chain expires. `None`: not readable.
    pub(super) fn expires_at(&self) -> Option<i64> {
        let end = |certificate: &CertificateDer<'_>| {
            let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
            Some(parsed.validity().not_after.timestamp())
        };
        self.chain.iter().filter_map(end).min()
    }
}

/// A file's bytes and the certificates in it, or why it cannot be used.
fn certificates(path: &Path) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), String> {
    let bytes = read_file(path)?;
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
    let bytes = read_file(path)?;
    let parsed = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| "contains no private key in PEM form")?;
    Ok((bytes, parsed))
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    if path.as_os_str().is_empty() {
        return Err("missing; link.tls needs all three files".to_owned());
    }
    std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))
}
