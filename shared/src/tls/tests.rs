//! TLS over real sockets, with certificates that each test issues.

use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server, server::TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::proto::link_client::LinkClient;
use crate::proto::link_server::{Link, LinkServer};
use crate::proto::{BrainFrame, GatewayFrame};

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The files of one side that trusts this CA and has a certificate of it.
    fn side(&self, name: &str) -> (TempDir, TlsSettings) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let dir = TempDir::new().unwrap();
        let settings = TlsSettings {
            ca_file: dir.path().join("ca.pem"),
            cert_file: dir.path().join("cert.pem"),
            key_file: dir.path().join("key.pem"),
            server_name: "brain".to_owned(),
        };
        std::fs::write(&settings.ca_file, self.0.pem()).unwrap();
        std::fs::write(&settings.cert_file, cert.pem()).unwrap();
        std::fs::write(&settings.key_file, key.serialize_pem()).unwrap();
        (dir, settings)
    }
}

struct Refusing;

#[tonic::async_trait]
impl Link for Refusing {
    type AttachStream = tonic::codegen::BoxStream<BrainFrame>;

    async fn attach(&self, _: Request<Streaming<GatewayFrame>>) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::already_exists("reached"))
    }
}

async fn serve(settings: &TlsSettings, stop: CancellationToken) -> SocketAddr {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let server =
        Server::builder().tls_config(settings.server().unwrap()).unwrap().add_service(LinkServer::new(Refusing));
    crate::lifecycle::Lifecycle::new().spawn(async move {
        server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await.unwrap();
    });
    address
}

async fn call(address: SocketAddr, tls: ClientTlsConfig) -> Result<(), Box<dyn std::error::Error>> {
    let channel: Channel = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect().await?;
    match LinkClient::new(channel).attach(tonic::codegen::tokio_stream::empty()).await {
        Err(status) if status.message() == "reached" => Ok(()),
        Err(status) => Err(status.into()),
        Ok(_) => Err("an answer nobody sent".into()),
    }
}

#[tokio::test]
async fn only_certificates_of_the_same_ca_reach_the_link() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (_brain_files, brain) = ca.side("brain");
    let (_gateway_files, gateway) = ca.side("gateway");
    let (_foreign_files, mut foreign) = other.side("gateway");
    let stop = CancellationToken::new();
    let address = serve(&brain, stop.clone()).await;

    call(address, gateway.client().unwrap()).await.unwrap();
    assert!(call(address, foreign.client().unwrap()).await.is_err(), "the gateway must not trust this brain");
    foreign.ca_file = gateway.ca_file.clone();
    assert!(call(address, foreign.client().unwrap()).await.is_err(), "the brain must not trust this gateway");
    let no_certificate = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca.0.pem())).domain_name("brain");
    assert!(call(address, no_certificate).await.is_err(), "a gateway must show a certificate");
    let wrong_name = TlsSettings { server_name: "other".to_owned(), ..gateway.clone() };
    assert!(call(address, wrong_name.client().unwrap()).await.is_err(), "the brain's name must fit");
    stop.cancel();
}

#[test]
fn three_unreadable_files_are_three_errors() {
    let missing = |name: &str| PathBuf::from("/no/such").join(name);
    let settings = TlsSettings {
        ca_file: missing("ca.pem"),
        cert_file: missing("cert.pem"),
        key_file: missing("key.pem"),
        server_name: String::new(),
    };
    let mut errors = ConfigErrors::default();
    settings.validate(false, &mut errors);
    let text = errors.to_string();
    assert_eq!(text.lines().count(), 3, "{text}");
    for (key, file) in [(CA, "ca.pem"), (CERT, "cert.pem"), (KEY, "key.pem")] {
        assert!(text.contains(&format!("{key}: /no/such/{file}: cannot be read")), "{text}");
    }
}

#[test]
fn every_unusable_file_is_named() {
    let ca = Ca::new();
    let (_a, good) = ca.side("brain");
    let (dir, other) = ca.side("brain");
    let garbage = dir.path().join("garbage.pem");
    std::fs::write(&garbage, "canary").unwrap();
    let damaged = dir.path().join("damaged.pem");
    std::fs::write(&damaged, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let missing = dir.path().join("missing.pem");
    let cases = [
        (TlsSettings { ca_file: missing.clone(), ..good.clone() }, CA, "cannot be read"),
        (TlsSettings { cert_file: garbage.clone(), ..good.clone() }, CERT, "no certificate"),
        (TlsSettings { ca_file: damaged.clone(), ..good.clone() }, CA, "not X.509"),
        (TlsSettings { key_file: garbage.clone(), ..good.clone() }, KEY, "no private key"),
        (TlsSettings { key_file: other.key_file.clone(), ..good.clone() }, KEY, "not the key of the certificate"),
    ];
    for (settings, key, reason) in cases {
        let error = settings.server().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{key}: ")) && error.contains(reason) && !error.contains("canary"),
            "{error}"
        );
        let mut errors = ConfigErrors::default();
        settings.validate(false, &mut errors);
        assert!(errors.has(key) && errors.to_string() == error, "{errors}");
    }
    assert!(good.client().is_ok() && good.server().is_ok());
}

#[test]
fn a_link_is_encrypted_or_declared_insecure() {
    let ca = Ca::new();
    let (_files, good) = ca.side("brain");
    let errors_of = |settings: &TlsSettings, insecure| {
        let mut errors = ConfigErrors::default();
        settings.validate(insecure, &mut errors);
        errors.iter().map(|error| error.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(errors_of(&TlsSettings::default(), false), ["link"]);
    assert_eq!(errors_of(&TlsSettings::default(), true), [""; 0]);
    assert_eq!(errors_of(&good, false), [""; 0]);
    assert_eq!(errors_of(&good, true), ["link.insecure"]);
    assert_eq!(errors_of(&TlsSettings { key_file: PathBuf::new(), ..good.clone() }, false), [KEY]);
}
