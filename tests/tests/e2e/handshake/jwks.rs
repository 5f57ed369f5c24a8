//! Tokens signed with private keys, checked through a JWKS document in a file or behind a URL.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use chatbox_tests::harness::Stack;
use chatbox_tests::harness::keys::{SigningKey, jwks};
use chatbox_tests::harness::tokens::{by_hand, claims, hs256};
use chatbox_tests::harness::waits::eventually;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
        let connected = stack.knock().bearer(&key.token(key.alg(), &claims("ana"))).connect().await?;
        ensure!(connected.welcome["user"]["id"] == "ana", "{}", connected.welcome);
    }
    let [Ok(rsa), Ok(ec), Ok(_)] = &keys else { anyhow::bail!("no keys") };
    let foreign = SigningKey::generate("ES256")?;
    // The public half as an HS256 secret, in every spelling an attacker has.
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
        check_refusal(what, &stack.knock().bearer(&token).answer().await?, 401, "unauthorized")?;
    }
    // The shared secret stays valid beside the file.
    stack.user("ana")?.connect().await?;
    Ok(())
}

/// An HTTP server with one document, counting how often it is asked.
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
            while let Ok((mut socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut head = [0; 4096];
                let _ = socket.read(&mut head).await;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{document}",
                    document.len()
                );
                let _ = socket.write_all(answer.as_bytes()).await;
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
    let stack = Stack::builder().gateway("auth.jwks_url", server.url.as_str())?.start().await?;
    eventually("the keys", || async { stack.knock().bearer(&key.token("one", &claims("ana"))).connect().await })
        .await?;
    ensure!(server.asked() == 1, "{} requests for the first keys", server.asked());
    // Half a minute must pass between two requests, whoever asks for whatever.
    for index in 0..20 {
        let token = key.token(&format!("made-up-{index}"), &claims("eve"));
        check_refusal("a made-up kid", &stack.knock().bearer(&token).answer().await?, 401, "unauthorized")?;
    }
    ensure!(server.asked() == 1, "made-up kids caused {} requests", server.asked() - 1);
    // Without the server the known keys go on.
    drop(server);
    stack.knock().bearer(&key.token("one", &claims("ana"))).connect().await?;
    Ok(())
}
