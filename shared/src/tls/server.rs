//! The brain's side of TLS: which client certificates it accepts, and the sockets whose handshake is done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use super::live::LiveTls;
use super::pem::{CA, KEY, Parsed};
use crate::config::ConfigErrors;
use crate::lifecycle::Lifecycle;

/// The time limit of a handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Handshakes at the same time. Further sockets wait in the backlog of the system.
const HANDSHAKES: usize = 128;
/// The pause after an `accept` that failed, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The setting that names the clients.
const NAMES: &str = "link.tls.allowed_client_names";

/// The names, each as a DNS name or an IP address.
///
/// # Errors
/// Where there is no name, or one of them is neither.
pub(super) fn client_names(names: &[String]) -> Result<Vec<ServerName<'static>>, ConfigErrors> {
    let mut errors = ConfigErrors::default();
    errors.ensure(!names.is_empty(), NAMES, "must have at least one name, or no gateway can connect");
    let mut parsed = Vec::new();
    for (n, name) in names.iter().enumerate() {
        match ServerName::try_from(name.clone()) {
            Ok(name) => parsed.push(name),
            Err(_) => errors.add(format!("{NAMES}.{n}"), "must be a DNS name or an IP address"),
        }
    }
    if parsed.len() == names.len() && !names.is_empty() { Ok(parsed) } else { Err(errors) }
}

/// The configuration of a brain.
///
/// # Errors
/// Where the files cannot be used together.
pub(super) fn config(parsed: Parsed, names: Vec<ServerName<'static>>) -> Result<ServerConfig, ConfigErrors> {
    let refused = |key: &str, error: &dyn std::fmt::Display| {
        let mut errors = ConfigErrors::default();
        errors.add(key, error.to_string());
        errors
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(parsed.authorities);
    let by_authority = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let by_authority = by_authority.map_err(|error| refused(CA, &error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(KEY, &error))?
        .with_client_cert_verifier(Arc::new(NamedClients { by_authority, names }))
        .with_single_cert(parsed.chain, parsed.key)
        .map_err(|error| refused(KEY, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Accepts a certificate of the authority that also carries one of the names. The authority alone proves only that a
/// service belongs to the same operator, and a gateway may speak for every user.
#[derive(Debug)]
struct NamedClients {
    by_authority: Arc<dyn ClientCertVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by_authority.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.by_authority.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if self.names.iter().any(|name| verify_server_name(&certificate, name).is_ok()) {
            Ok(verified)
        } else {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

/// The sockets of clients that have finished their TLS handshake. A critical task accepts them until the drain; each
/// handshake has a task of its own, so that a slow client delays no other.
pub fn accept_tls(
    listener: TcpListener,
    tls: LiveTls<ServerConfig>,
    lifecycle: &Lifecycle,
) -> impl Stream<Item = std::io::Result<TlsStream<TcpStream>>> + use<> {
    let (ready, sockets) = mpsc::channel(1);
    let (drain, tasks) = (lifecycle.draining().clone(), lifecycle.clone());
    lifecycle.critical("link listener", async move {
        drain.run_until_cancelled(accept(listener, tls, ready, tasks)).await;
    });
    ReceiverStream::new(sockets)
}

async fn accept(
    listener: TcpListener,
    tls: LiveTls<ServerConfig>,
    ready: mpsc::Sender<std::io::Result<TlsStream<TcpStream>>>,
    lifecycle: Lifecycle,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a socket of the link");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, ready) = (TlsAcceptor::from(tls.current()), ready.clone());
        let drain = lifecycle.draining().clone();
        lifecycle.spawn(async move {
            let _place = place;
            drain.run_until_cancelled(shake_hands(acceptor, socket, peer, ready)).await;
        });
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    peer: SocketAddr,
    ready: mpsc::Sender<std::io::Result<TlsStream<TcpStream>>>,
) {
    let _only_slower_without = socket.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(socket)).await {
        Ok(Ok(socket)) => {
            let _server_ended = ready.send(Ok(socket)).await;
        }
        Ok(Err(error)) => tracing::warn!(%peer, %error, "a TLS handshake of the link failed"),
        Err(_) => tracing::warn!(%peer, "a TLS handshake of the link took too long"),
    }
}
