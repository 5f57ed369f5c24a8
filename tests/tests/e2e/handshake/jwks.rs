//! Tokens signed with private keys, checked through a JWKS document in a file or behind a URL.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use bytes::Bytes;
use chatbox_tests::harness::Stack;
use chatbox_tests::harness::keys::{SigningKey, jwks};
use chatbox_tests::harness::tokens::{by_hand, claims, hs256};
use chatbox_tests::harness::waits::eventually;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::check_refusal;

#[tokio::test]
async fn three_algorithms_are_taken_through_a_jwks_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("jwks.json");
    let keys = ["RS256", "ES256", "EdDSA"].map(SigningKey::generate);
    let mut public = Vec::new();
    for key in &keys {
        let key = key.as_ref().map_err(|fault| anyhow::anyhow!("{fault}"))?;
        public.push(key.jwk(key.alg())?);
    }
    let document = jwks(&public);
    std::fs::write(&file, &document)?;
    let stack = Stack::builder().gateway("auth.jwks_file", file.display().to_string())?.start().await?;

    for key in keys.iter().flatten() {
        let connected = stack.handshake().bearer(&key.token(key.alg(), &claims("ana"))).connect().await?;
        ensure!(connected.welcome["user"]["id"] == "ana", "{}", connected.welcome);
    }
    let [Ok(rsa), Ok(ec), Ok(_)] = &keys else { anyhow::bail!("no keys") };
    let foreign = SigningKey::generate("ES256")?;
    // The public key as an HS256 secret, in every encoding that an attacker has.
    let confused = [document.clone(), public[0].to_string(), public[0]["n"].to_string()];
    let mut bad = vec![
        ("a foreign key under a known kid", foreign.token("ES256", &claims("ana"))),
        ("an unknown kid", ec.token("other", &claims("ana"))),
        ("a hostile kid", ec.token("../../etc/passwd", &claims("ana"))),
        ("the kid of another algorithm", ec.token("RS256", &claims("ana"))),
        (
            "a key of its own in the header",
            by_hand(
                &json!({ "alg": "ES256", "kid": "ES256", "jwk": foreign.jwk("ES256")? }),
                &claims("ana"),
                |bytes| foreign.sign(bytes),
            ),
        ),
        (
            "another algorithm's name",
            by_hand(&json!({ "alg": "PS256", "kid": "RS256" }), &claims("ana"), |bytes| rsa.sign(bytes)),
        ),
    ];
    for secret in &confused {
        bad.push(("HS256 with the public key", hs256(secret, &claims("ana"))?));
    }
    for (what, token) in bad {
        check_refusal(what, &stack.handshake().bearer(&token).response().await?, 401, "unauthorized")?;
    }
    // The shared secret is still valid beside the file.
    stack.user("ana")?.connect().await?;
    Ok(())
}

/// An HTTP server with one document that counts its requests.
struct KeyServer {
    url: String,
    asked: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl KeyServer {
    async fn start(document: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/jwks.json", listener.local_addr()?);
        let asked = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        let count = Arc::clone(&asked);
        task.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service_fn(|_| {
                    count.fetch_add(1, Ordering::SeqCst);
                    ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(document.clone()))))
                });
                // A gateway that closes early requests the document again.
                let _ended =
                    http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(socket), service).await;
            }
        });
        Ok(Self { url, asked, _task: task })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn keys_come_from_a_url_and_made_up_kids_do_not_become_requests() -> Result<()> {
    let key = SigningKey::generate("EdDSA")?;
    let server = KeyServer::start(jwks(&[key.jwk("one")?])).await?;
    let builder = Stack::builder().gateway("auth.jwks_url", server.url.as_str())?;
    let stack = builder.gateway("auth.insecure_jwks_url", true)?.start().await?;
    eventually("the keys", || async { stack.handshake().bearer(&key.token("one", &claims("ana"))).connect().await })
        .await?;
    ensure!(server.asked() == 1, "{} requests for the first keys", server.asked());
    // At most one request in 30 s, whatever key ids the tokens name.
    for index in 0..20 {
        let token = key.token(&format!("made-up-{index}"), &claims("eve"));
        check_refusal("a made-up kid", &stack.handshake().bearer(&token).response().await?, 401, "unauthorized")?;
    }
    ensure!(server.asked() == 1, "made-up kids caused {} requests", server.asked() - 1);
    // Without the server the known keys stay valid.
    drop(server);
    stack.handshake().bearer(&key.token("one", &claims("ana"))).connect().await?;
    Ok(())
}
