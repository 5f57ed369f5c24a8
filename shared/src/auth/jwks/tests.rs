//! Public keys by JWKS, against a real HTTP server that counts how often it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm as Jwa, EncodingKey};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

use super::super::tests::{SECRET, sign};
use super::super::{Options, TokenError, TokenVerifier};
use super::*;
use crate::clock::{Clock as _, SystemClock};

/// A private key and its public entry.
struct Pair {
    algorithm: Jwa,
    key: EncodingKey,
    entry: Value,
    kid: &'static str,
}

impl Pair {
    fn new(algorithm: Jwa, kid: &'static str, key: EncodingKey) -> Self {
        let mut jwk = Jwk::from_encoding_key(&key, algorithm).expect("public part");
        jwk.common.key_id = Some(kid.to_owned());
        Self { algorithm, key, entry: serde_json::to_value(jwk).expect("json"), kid }
    }

    fn ed25519(kid: &'static str) -> Self {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let key = aws_lc_rs::signature::Ed25519KeyPair::generate_pkcs8v1(&random).expect("key");
        Self::new(Jwa::EdDSA, kid, EncodingKey::from_ed_der(key.as_ref()))
    }

    fn p256(kid: &'static str) -> Self {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("key");
        Self::new(Jwa::ES256, kid, EncodingKey::from_ec_der(key.as_ref()))
    }

    fn rsa(kid: &'static str) -> Self {
        use aws_lc_rs::encoding::AsDer as _;
        let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("key");
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().expect("der");
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
        Self::new(Jwa::RS256, kid, EncodingKey::from_rsa_pem(pem.as_bytes()).expect("pem"))
    }

    fn token(&self) -> String {
        self.token_with(&json!({"alg": self.algorithm, "kid": self.kid}))
    }

    fn token_with(&self, header: &Value) -> String {
        sign(header, &claims(), self.algorithm, &self.key)
    }
}

fn claims() -> Value {
    json!({"sub": "user-1", "exp": SystemClock.now().0 / 1000 + 600})
}

fn document(pairs: &[&Pair]) -> Vec<u8> {
    json!({"keys": pairs.iter().map(|pair| &pair.entry).collect::<Vec<_>>()}).to_string().into_bytes()
}

/// What the server does with the next requests.
#[derive(Clone)]
enum Mode {
    Give(Vec<u8>),
    Fail,
    Redirect(Url),
    /// Says it will send this many bytes and then nothing.
    Stall,
    /// Never stops sending.
    Endless,
}

struct Server {
    url: Url,
    fetches: Arc<AtomicUsize>,
    mode: Arc<Mutex<Mode>>,
    lifecycle: Lifecycle,
}

impl Server {
    async fn start(mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}/jwks.json", listener.local_addr().expect("address")).parse().expect("url");
        let server =
            Self { url, fetches: Arc::default(), mode: Arc::new(Mutex::new(mode)), lifecycle: Lifecycle::new() };
        let (fetches, mode, lifecycle) =
            (Arc::clone(&server.fetches), Arc::clone(&server.mode), server.lifecycle.clone());
        server.lifecycle.spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                fetches.fetch_add(1, Ordering::SeqCst);
                let mode = mode.lock().clone();
                lifecycle.spawn(async move {
                    let mut request = [0; 4096];
                    let _read = socket.read(&mut request).await;
                    let head = |status: &str, length: usize, more: &str| {
                        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n")
                            .into_bytes()
                    };
                    let answer = match mode {
                        Mode::Give(ref document) => [head("200 OK", document.len(), ""), document.clone()].concat(),
                        Mode::Fail => head("500 Oh No", 0, ""),
                        Mode::Redirect(ref url) => head("302 Found", 0, &format!("location: {url}\r\n")),
                        Mode::Stall | Mode::Endless => head("200 OK", 1 << 40, ""),
                    };
                    let mut alive = socket.write_all(&answer).await.is_ok();
                    match mode {
                        Mode::Stall => std::future::pending().await,
                        Mode::Endless => {
                            while alive {
                                alive = socket.write_all(&[b' '; 65536]).await.is_ok();
                            }
                        }
                        _ => {}
                    }
                });
            }
        });
        server
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    fn verifier(&self) -> TokenVerifier {
        self.verifier_with(MAX_STALE, &Gauge::default())
    }

    fn verifier_with(&self, max_stale: Duration, stale_seconds: &Gauge) -> TokenVerifier {
        let options = JwksOptions {
            max_stale,
            stale_seconds: stale_seconds.clone(),
            ..options(JwksSource::Url(self.url.clone()))
        };
        let jwks = Some(options);
        TokenVerifier::new(Options { jwks, ..Options::default() }, Arc::new(SystemClock), &self.lifecycle)
            .expect("verifier")
    }
}

const MAX_STALE: Duration = Duration::from_secs(3600);

fn options(source: JwksSource) -> JwksOptions {
    JwksOptions { source, refresh: Duration::from_secs(300), max_stale: MAX_STALE, stale_seconds: Gauge::default() }
}

/// Lets so much time pass at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn each_kind_of_key_verifies_its_own_tokens_only() {
    let (rsa, ec, ed) = (Pair::rsa("rsa"), Pair::p256("ec"), Pair::ed25519("ed"));
    let server = Server::start(Mode::Give(document(&[&rsa, &ec, &ed]))).await;
    let verifier = server.verifier();
    for pair in [&rsa, &ec, &ed] {
        assert!(verifier.verify(&pair.token()).await.is_ok(), "{}", pair.kid);
        // No kid: the only key of its kind.
        assert!(verifier.verify(&pair.token_with(&json!({"alg": pair.algorithm}))).await.is_ok(), "{}", pair.kid);
        // Another pair's kid under its own algorithm, or another algorithm under its own kid.
        for other in [&rsa, &ec, &ed].into_iter().filter(|other| other.kid != pair.kid) {
            let wrong_kid = pair.token_with(&json!({"alg": pair.algorithm, "kid": other.kid}));
            assert_eq!(verifier.verify(&wrong_kid).await, Err(TokenError::UnknownKey));
            let wrong_alg = pair.token_with(&json!({"alg": other.algorithm, "kid": other.kid}));
            assert_eq!(verifier.verify(&wrong_alg).await, Err(TokenError::Signature));
        }
    }
    assert_eq!(server.fetches(), 1);
}

#[tokio::test]
async fn a_public_key_is_no_hs256_secret() {
    let rsa = Pair::rsa("rsa");
    let server = Server::start(Mode::Give(document(&[&rsa]))).await;
    let jwks = Some(options(JwksSource::Url(server.url.clone())));
    let both = Options { jwks, hs256_secret: Some(SECRET.into()), ..Options::default() };
    let both = TokenVerifier::new(both, Arc::new(SystemClock), &server.lifecycle).expect("verifier");
    let only_jwks = server.verifier();
    let modulus = rsa.entry["n"].as_str().expect("n").to_owned();
    for guess in [modulus.as_bytes().to_vec(), document(&[&rsa]), rsa.entry.to_string().into_bytes()] {
        let header = json!({"alg": "HS256", "kid": "rsa"});
        let token = sign(&header, &claims(), Jwa::HS256, &EncodingKey::from_secret(&guess));
        assert_eq!(both.verify(&token).await, Err(TokenError::Signature));
        assert_eq!(only_jwks.verify(&token).await, Err(TokenError::Algorithm));
    }
    // And the secret is no public key: an RS256 token that names no known key fails, whatever it was signed with.
    let header = json!({"alg": "RS256", "kid": "hs"});
    let token = sign(&header, &claims(), Jwa::HS256, &EncodingKey::from_secret(SECRET.as_bytes()));
    assert_eq!(both.verify(&token).await, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn keys_that_a_token_brings_along_are_ignored() {
    let (known, stranger) = (Pair::ed25519("ed"), Pair::ed25519("ed"));
    let trap = Server::start(Mode::Give(document(&[&stranger]))).await;
    let server = Server::start(Mode::Give(document(&[&known]))).await;
    let verifier = server.verifier();
    let header = json!({
        "alg": "EdDSA", "kid": "ed", "jku": trap.url.as_str(), "x5u": trap.url.as_str(), "jwk": stranger.entry, "x5c": ["AAAA"],
    });
    assert_eq!(verifier.verify(&stranger.token_with(&header)).await, Err(TokenError::Signature));
    let header = json!({"alg": "EdDSA", "kid": trap.url.as_str(), "jku": trap.url.as_str()});
    assert_eq!(verifier.verify(&stranger.token_with(&header)).await, Err(TokenError::UnknownKey));
    assert_eq!(trap.fetches(), 0);
    // Nor is a redirect followed.
    server.set(Mode::Redirect(trap.url.clone()));
    pass(MIN_INTERVAL).await;
    assert_eq!(verifier.verify(&stranger.token_with(&header)).await, Err(TokenError::UnknownKey));
    assert_eq!((server.fetches(), trap.fetches()), (2, 0));
}

#[tokio::test]
async fn unknown_kids_cost_one_fetch_in_thirty_seconds_and_a_rotated_key_is_found() {
    let (old, new) = (Pair::ed25519("old"), Pair::ed25519("new"));
    let server = Server::start(Mode::Give(document(&[&old]))).await;
    let verifier = Arc::new(server.verifier());
    assert!(verifier.verify(&old.token()).await.is_ok());
    server.set(Mode::Give(document(&[&old, &new])));
    for kid in ["a", "b", "new", "' OR 1=1"] {
        let token = new.token_with(&json!({"alg": "EdDSA", "kid": kid}));
        assert_eq!(verifier.verify(&token).await, Err(TokenError::UnknownKey));
    }
    assert_eq!(server.fetches(), 1);
    pass(MIN_INTERVAL).await;
    let checks: Vec<_> = (0..20).map(|_| (Arc::clone(&verifier), new.token())).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for (verifier, token) in checks {
        tasks.spawn(async move { verifier.verify(&token).await.is_ok() });
    }
    assert!(tasks.join_all().await.into_iter().all(|ok| ok));
    assert_eq!(server.fetches(), 2, "twenty callers share one fetch");
}

#[tokio::test]
async fn a_caller_who_gives_up_does_not_cancel_the_fetch() {
    let pair = Pair::ed25519("ed");
    let server = Server::start(Mode::Give(document(&[&pair]))).await;
    let verifier = server.verifier();
    let token = pair.token();
    // Polled once, so that it has asked for the keys, and then dropped.
    tokio::select! {
        biased;
        verified = verifier.verify(&token) => panic!("there was nothing to wait for: {verified:?}"),
        () = std::future::ready(()) => {}
    }
    assert!(verifier.verify(&token).await.is_ok());
    assert_eq!(server.fetches(), 1);
}

#[tokio::test]
async fn a_jwks_that_fails_keeps_the_keys() {
    let (pair, unknown) = (Pair::ed25519("ed"), Pair::ed25519("unknown"));
    let server = Server::start(Mode::Give(document(&[&pair]))).await;
    let verifier = server.verifier();
    assert!(verifier.verify(&pair.token()).await.is_ok());
    let failures = [
        Mode::Fail,
        Mode::Give(b"<html>".to_vec()),
        Mode::Give(Vec::new()),
        Mode::Give(vec![b' '; source::MAX_BYTES + 1]),
        Mode::Endless,
    ];
    for (n, failure) in failures.into_iter().enumerate() {
        server.set(failure);
        pass(MIN_INTERVAL).await;
        assert_eq!(verifier.verify(&unknown.token()).await, Err(TokenError::UnknownKey));
        assert_eq!(server.fetches(), n + 2);
        assert!(verifier.verify(&pair.token()).await.is_ok());
        assert!(verifier.has_keys());
    }
}

#[tokio::test]
async fn a_slow_jwks_delays_nobody_whose_key_is_known() {
    let pair = Pair::ed25519("ed");
    let server = Server::start(Mode::Give(document(&[&pair]))).await;
    let verifier = Arc::new(server.verifier());
    assert!(verifier.verify(&pair.token()).await.is_ok());
    server.set(Mode::Stall);
    pass(MIN_INTERVAL).await;
    let unknown = Pair::ed25519("unknown").token();
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn({
        let verifier = Arc::clone(&verifier);
        async move { verifier.verify(&unknown).await }
    });
    while server.fetches() < 2 {
        tokio::task::yield_now().await;
    }
    let known = tokio::time::timeout(Duration::from_secs(1), verifier.verify(&pair.token())).await;
    assert!(known.expect("at once").is_ok());
    pass(WAIT_LIMIT).await;
    assert_eq!(waiting.join_next().await.expect("a task").expect("no panic"), Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn a_jwks_that_comes_later_is_read_when_it_is_there() {
    let pair = Pair::p256("ec");
    let server = Server::start(Mode::Fail).await;
    let verifier = server.verifier();
    assert_eq!(verifier.verify(&pair.token()).await, Err(TokenError::KeysUnavailable));
    assert!(!verifier.has_keys());
    server.set(Mode::Give(document(&[&pair])));
    pass(MIN_INTERVAL).await;
    assert!(verifier.verify(&pair.token()).await.is_ok());
    assert!(verifier.has_keys());
}

#[tokio::test]
async fn an_empty_document_withdraws_the_keys() {
    let pair = Pair::ed25519("ed");
    let server = Server::start(Mode::Give(document(&[&pair]))).await;
    let verifier = server.verifier();
    assert!(verifier.verify(&pair.token()).await.is_ok());
    server.set(Mode::Give(b"{\"keys\":[]}".to_vec()));
    pass(MIN_INTERVAL).await;
    let unknown = Pair::ed25519("unknown").token();
    assert_eq!(verifier.verify(&unknown).await, Err(TokenError::UnknownKey));
    assert_eq!(verifier.verify(&pair.token()).await, Err(TokenError::UnknownKey), "the key was withdrawn");
    assert!(verifier.has_keys(), "the gateway knows that no key is valid");
}

#[tokio::test]
async fn keys_that_cannot_be_read_again_for_too_long_are_not_used() {
    let (pair, unknown) = (Pair::ed25519("ed"), Pair::ed25519("unknown"));
    let server = Server::start(Mode::Give(document(&[&pair]))).await;
    let stale = Gauge::default();
    let verifier = server.verifier_with(Duration::from_secs(120), &stale);
    assert!(verifier.verify(&pair.token()).await.is_ok());
    server.set(Mode::Fail);
    for seconds in [0, 30, 60, 90] {
        pass(MIN_INTERVAL).await;
        // The unknown key causes a read, which fails.
        assert_eq!(verifier.verify(&unknown.token()).await, Err(TokenError::UnknownKey));
        assert!(stale.get() >= seconds, "{} after {seconds}", stale.get());
        assert!(verifier.verify(&pair.token()).await.is_ok(), "{seconds} s");
    }
    pass(MIN_INTERVAL).await;
    assert_eq!(verifier.verify(&pair.token()).await, Err(TokenError::KeysUnavailable));
    assert!(!verifier.has_keys());
    server.set(Mode::Give(document(&[&pair])));
    pass(MIN_INTERVAL).await;
    assert!(verifier.verify(&pair.token()).await.is_ok(), "the keys are read again");
    assert_eq!(stale.get(), 0);
}

#[tokio::test]
async fn a_file_is_read_at_the_start_and_again_when_its_keys_change() {
    let (old, new) = (Pair::ed25519("old"), Pair::p256("new"));
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("jwks.json");
    let options = || Options { jwks: Some(options(JwksSource::File(path.clone()))), ..Options::default() };
    let lifecycle = Lifecycle::new();
    let start = || TokenVerifier::new(options(), Arc::new(SystemClock), &lifecycle);
    assert!(start().is_err(), "there is no file");
    assert!(check_jwks_file(&path).is_err());
    std::fs::write(&path, document(&[&old])).expect("write");
    assert!(check_jwks_file(&path).is_ok());
    let verifier = start().expect("a usable file");
    assert!(verifier.verify(&old.token()).await.is_ok());
    assert_eq!(verifier.verify(&new.token()).await, Err(TokenError::UnknownKey));
    std::fs::write(&path, document(&[&new])).expect("write");
    pass(MIN_INTERVAL).await;
    assert!(verifier.verify(&new.token()).await.is_ok());
    assert_eq!(verifier.verify(&old.token()).await, Err(TokenError::UnknownKey));
}
