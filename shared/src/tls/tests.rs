//! TLS over real sockets, with certificates that each test issues.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::live::READ_INTERVAL;
use super::pem::{CA, CERT, KEY};
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
        self.side_with(&[name])
    }

    fn side_with(&self, names: &[&str]) -> (TempDir, TlsSettings) {
        let dir = TempDir::new().unwrap();
        let settings = TlsSettings {
            ca_file: dir.path().join("ca.pem"),
            cert_file: dir.path().join("cert.pem"),
            key_file: dir.path().join("key.pem"),
            server_name: "brain".to_owned(),
            allowed_client_names: vec!["gateway".to_owned()],
        };
        std::fs::write(&settings.ca_file, self.0.pem()).unwrap();
        self.certify(&settings, names, 2030);
        (dir, settings)
    }

    /// Writes a new certificate with these names, valid until the first day of a year.
    fn certify(&self, settings: &TlsSettings, names: &[&str], until: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let cert = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(&settings.cert_file, cert.pem()).unwrap();
        std::fs::write(&settings.key_file, key.serialize_pem()).unwrap();
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

/// Serves until `lifecycle` drains.
async fn serve(settings: &TlsSettings, expiry: &Gauge, lifecycle: &Lifecycle) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = settings.server(expiry.clone(), lifecycle).unwrap();
    let incoming = accept_tls(listener, tls, lifecycle);
    let stop = lifecycle.draining().clone().cancelled_owned();
    let server = Server::builder().add_service(LinkServer::new(Refusing));
    lifecycle.spawn(async move {
        server.serve_with_incoming_shutdown(incoming, stop).await.unwrap();
    });
    address
}

/// The configuration of a gateway for one connection.
fn client(settings: &TlsSettings, lifecycle: &Lifecycle) -> ClientTlsConfig {
    settings.client(Gauge::default(), lifecycle).unwrap().current().as_ref().clone()
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
    let (ca, other, lifecycle) = (Ca::new(), Ca::new(), Lifecycle::new());
    let (_brain_files, brain) = ca.side("brain");
    let (_gateway_files, gateway) = ca.side("gateway");
    let (_foreign_files, mut foreign) = other.side("gateway");
    let address = serve(&brain, &Gauge::default(), &lifecycle).await;

    call(address, client(&gateway, &lifecycle)).await.unwrap();
    assert!(call(address, client(&foreign, &lifecycle)).await.is_err(), "the gateway must not trust this brain");
    foreign.ca_file = gateway.ca_file.clone();
    assert!(call(address, client(&foreign, &lifecycle)).await.is_err(), "the brain must not trust this gateway");
    let no_certificate = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca.0.pem())).domain_name("brain");
    assert!(call(address, no_certificate).await.is_err(), "a gateway must show a certificate");
    let wrong_name = TlsSettings { server_name: "other".to_owned(), ..gateway.clone() };
    assert!(call(address, client(&wrong_name, &lifecycle)).await.is_err(), "the brain's name must fit");
    lifecycle.drain();
}

#[tokio::test]
async fn only_certificates_of_a_gateway_reach_the_link() {
    let (ca, lifecycle) = (Ca::new(), Lifecycle::new());
    let (_brain_files, mut brain) = ca.side("brain");
    brain.allowed_client_names.push("edge.example.com".to_owned());
    let address = serve(&brain, &Gauge::default(), &lifecycle).await;
    let cases: [(&[&str], bool); 6] = [
        (&["gateway"], true),
        (&["other", "edge.example.com"], true),
        (&["billing"], false),
        (&["brain"], false),
        (&["gateway.example.com"], false),
        (&[], false),
    ];
    for (names, accepted) in cases {
        let (_files, settings) = ca.side_with(names);
        assert_eq!(call(address, client(&settings, &lifecycle)).await.is_ok(), accepted, "{names:?}");
    }
    lifecycle.drain();
}

/// Lets the time of reads come until one has had the expected effect.
async fn after_a_read(expiry: &Gauge, expected: i64) {
    for _ in 0..1000 {
        if expiry.get() == expected {
            return;
        }
        tokio::time::pause();
        tokio::time::advance(READ_INTERVAL).await;
        tokio::time::resume();
        // The files are read by another thread.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the expiry is still {}", expiry.get());
}

#[tokio::test]
async fn changed_files_are_used_for_new_connections() {
    let (ca, lifecycle, expiry) = (Ca::new(), Lifecycle::new(), Gauge::default());
    let (_brain_files, brain) = ca.side("brain");
    let (_gateway_files, gateway) = ca.side("gateway");
    let address = serve(&brain, &expiry, &lifecycle).await;
    let first = rcgen::date_time_ymd(2030, 1, 1).unix_timestamp();
    assert_eq!(expiry.get(), first);
    call(address, client(&gateway, &lifecycle)).await.unwrap();

    // Only the certificate has changed yet: it does not fit its key, so the previous pair stays in use.
    let key = std::fs::read(&brain.key_file).unwrap();
    ca.certify(&brain, &["renamed"], 2040);
    let new_key = std::fs::read(&brain.key_file).unwrap();
    std::fs::write(&brain.key_file, key).unwrap();
    tokio::time::pause();
    tokio::time::advance(READ_INTERVAL).await;
    tokio::time::resume();
    call(address, client(&gateway, &lifecycle)).await.unwrap();
    assert_eq!(expiry.get(), first);

    std::fs::write(&brain.key_file, new_key).unwrap();
    after_a_read(&expiry, rcgen::date_time_ymd(2040, 1, 1).unix_timestamp()).await;
    assert!(call(address, client(&gateway, &lifecycle)).await.is_err(), "the brain shows its new name");
    let renamed = TlsSettings { server_name: "renamed".to_owned(), ..gateway.clone() };
    call(address, client(&renamed, &lifecycle)).await.unwrap();
    lifecycle.drain();
}

#[tokio::test]
async fn the_names_of_gateways_are_checked() {
    let (_files, good) = Ca::new().side("brain");
    for (names, key) in [(vec![], "link.tls.allowed_client_names"), (vec!["a b"], "link.tls.allowed_client_names.0")] {
        let names = names.into_iter().map(str::to_owned).collect();
        let mut errors = ConfigErrors::default();
        TlsSettings { allowed_client_names: names, ..good.clone() }.validate_client_names(&mut errors);
        assert!(errors.has(key), "{errors}");
    }
}

#[test]
fn three_unreadable_files_are_three_errors() {
    let missing = |name: &str| PathBuf::from("/no/such").join(name);
    let settings = TlsSettings {
        ca_file: missing("ca.pem"),
        cert_file: missing("cert.pem"),
        key_file: missing("key.pem"),
        ..TlsSettings::default()
    };
    let mut errors = ConfigErrors::default();
    settings.validate(false, &mut errors);
    let text = errors.to_string();
    assert_eq!(text.lines().count(), 3, "{text}");
    for (key, file) in [(CA, "ca.pem"), (CERT, "cert.pem"), (KEY, "key.pem")] {
        assert!(text.contains(&format!("{key}: /no/such/{file}: cannot be read")), "{text}");
    }
}

#[tokio::test]
async fn every_unusable_file_is_named() {
    let (ca, lifecycle) = (Ca::new(), Lifecycle::new());
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
        let error = settings.server(Gauge::default(), &lifecycle).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{key}: ")) && error.contains(reason) && !error.contains("canary"),
            "{error}"
        );
        let mut errors = ConfigErrors::default();
        settings.validate(false, &mut errors);
        assert!(errors.has(key) && errors.to_string() == error, "{errors}");
    }
    assert!(good.client(Gauge::default(), &lifecycle).is_ok() && good.server(Gauge::default(), &lifecycle).is_ok());
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
