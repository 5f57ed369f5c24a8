//! The listener with its routes and handshakes, over real sockets. An echo service replaces the connection loop.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chatbox_shared::auth::TokenVerifier;
use chatbox_shared::clock::SystemClock;
use chatbox_shared::config::load_from;
use futures_util::{SinkExt as _, StreamExt as _};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tungstenite::Message;

use super::*;
use crate::config::GatewaySettings;
use crate::handshake::Handshake;
use crate::metrics::HandshakeLabels;

const SECRET: &str = "kT7w!nB4xQz9vR2mL6pY8cJ3hF5dG1sA";
/// The time limit of every wait.
const LIMIT: Duration = Duration::from_secs(20);

/// Sends every message back together with its sender.
struct Echo;

impl Sockets for Echo {
    async fn serve(&self, accepted: Accepted, mut socket: WebSocketStream<TcpStream>) {
        while let Some(Ok(message)) = socket.next().await {
            let Ok(text) = message.to_text() else { return };
            let user = accepted.verified.principal.user.as_str();
            let device = accepted.device.as_deref().unwrap_or_default();
            let reply = format!("{user}/{device}@{}: {text}", accepted.remote_ip);
            if socket.send(Message::text(reply)).await.is_err() {
                return;
            }
        }
    }
}

struct Server {
    address: SocketAddr,
    lifecycle: Lifecycle,
    closing: CancellationToken,
    brain: Arc<AtomicBool>,
    metrics: Metrics,
}

impl Server {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let base = [("CHATBOX__AUTH__HS256_SECRET", SECRET), ("CHATBOX__LINK__INSECURE", "true")];
        let settings: GatewaySettings = load_from(None, base.iter().chain(settings).copied()).expect("settings");
        let max_connections = match settings.limits.max_connections {
            0 => 1000,
            max => max,
        };
        let (lifecycle, closing) = (Lifecycle::new(), CancellationToken::new());
        let brain = Arc::new(AtomicBool::new(true));
        let metrics = Metrics::new(&mut Registry::default());
        let verifier =
            TokenVerifier::new(settings.auth.options(metrics.jwks_stale.clone()), Arc::new(SystemClock), &lifecycle)
                .expect("keys");
        let brain_ready = Arc::clone(&brain);
        let handshake = Handshake::new(
            settings.handshake(max_connections),
            Arc::new(verifier),
            Box::new(move || brain_ready.load(Ordering::SeqCst)),
            lifecycle.draining().clone(),
            metrics.clone(),
        );
        let any = "127.0.0.1:0".parse().expect("address");
        let slots = Slots::new(100, settings.limits.http_sockets_per_address, settings.security.proxy_networks());
        let listener = Listener::bind(any, settings.limits.http(), slots).await.expect("bind");
        let address = listener.address().expect("address");
        let routes = Routes::new(&settings.gateway.path_prefix, handshake);
        listener.serve(routes, Echo, WebSocketConfig::default(), metrics.clone(), &lifecycle, closing.clone());
        Self { address, lifecycle, closing, brain, metrics }
    }

    /// How many handshakes had this outcome.
    fn outcomes(&self, outcome: HandshakeOutcome) -> u64 {
        self.metrics.handshakes.get_or_create(&HandshakeLabels { outcome }).get()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connect")
    }

    async fn ask(&self, request: &HandshakeRequest) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(request.text().as_bytes()).await.expect("write");
        Reply::read(&mut stream).await
    }

    async fn open(&self, request: &HandshakeRequest) -> WebSocketStream<TcpStream> {
        let mut stream = self.connect().await;
        stream.write_all(request.text().as_bytes()).await.expect("write");
        let reply = Reply::read(&mut stream).await;
        assert_eq!(reply.status, 101, "{reply:?}");
        WebSocketStream::from_raw_socket(stream, Role::Client, None).await
    }
}

/// A valid handshake that tests change.
#[derive(Clone)]
struct HandshakeRequest {
    line: String,
    headers: Vec<(String, String)>,
}

impl HandshakeRequest {
    fn good() -> Self {
        Self::without_token().with("Authorization", &format!("Bearer {}", token()))
    }

    fn without_token() -> Self {
        Self { line: "GET /chat/ws HTTP/1.1".to_owned(), headers: Vec::new() }
            .with("Host", "chat.example.com")
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    fn line(mut self, line: &str) -> Self {
        self.line = line.to_owned();
        self
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    fn text(&self) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{}\r\n{headers}\r\n", self.line)
    }
}

fn token_with(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "HS256"})), part(claims));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
}

fn token() -> String {
    token_with(&json!({"sub": "ada", "exp": 4_000_000_000u64}))
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    async fn read(stream: &mut TcpStream) -> Self {
        let read = async {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                assert_eq!(stream.read(&mut byte).await.expect("read"), 1, "the connection ended: {head:?}");
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).expect("text");
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("status");
            let mut reply = Self { status, head, body: String::new() };
            let length = reply.header("content-length").map_or(0, |length| length.parse().expect("length"));
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.expect("body");
            reply.body = String::from_utf8(body).expect("text");
            reply
        };
        tokio::time::timeout(LIMIT, read).await.expect("an answer in time")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value))
    }

    #[track_caller]
    fn is(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let body: Value = serde_json::from_str(&self.body).expect("json");
        assert_eq!(body["error"]["code"], code, "{self:?}");
        assert!(body["error"]["message"].is_string() && body["error"]["error_id"].is_string(), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
    }
}

async fn say(socket: &mut WebSocketStream<TcpStream>, text: &str) -> String {
    socket.send(Message::text(text)).await.expect("send");
    hear(socket).await
}

async fn hear(socket: &mut WebSocketStream<TcpStream>) -> String {
    let message = tokio::time::timeout(LIMIT, socket.next()).await.expect("in time");
    message.expect("a message").expect("no error").into_text().expect("text").to_string()
}

/// Waits until the condition holds.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("it came true in time");
}

#[tokio::test]
async fn a_good_handshake_opens_a_socket() {
    let server = Server::start(&[]).await;
    let mut stream = server.connect().await;
    stream.write_all(HandshakeRequest::good().text().as_bytes()).await.expect("write");
    let reply = Reply::read(&mut stream).await;
    assert_eq!(reply.status, 101);
    assert_eq!(reply.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(reply.header("sec-websocket-protocol"), None);
    assert_eq!(reply.header("sec-websocket-extensions"), None);
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    assert_eq!(say(&mut socket, "hello").await, "ada/@127.0.0.1: hello");
    assert_eq!(server.metrics.sockets.get(), 1);
    drop(socket);
    until(|| server.metrics.sockets.get() == 0).await;
}

#[tokio::test]
async fn bytes_directly_after_the_handshake_are_not_lost() {
    let server = Server::start(&[]).await;
    let mut stream = server.connect().await;
    // A masked text frame "hi" with the mask 0.
    let bytes = [HandshakeRequest::good().text().as_bytes(), &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']].concat();
    stream.write_all(&bytes).await.expect("write");
    assert_eq!(Reply::read(&mut stream).await.status, 101);
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    assert_eq!(hear(&mut socket).await, "ada/@127.0.0.1: hi");
    assert_eq!(say(&mut socket, "again").await, "ada/@127.0.0.1: again");
}

#[tokio::test]
async fn a_browser_sends_its_token_as_a_subprotocol_and_never_sees_it_again() {
    let server = Server::start(&[]).await;
    let token = token();
    let ask =
        HandshakeRequest::without_token().with("Sec-WebSocket-Protocol", &format!("chatbox.v1, chatbox.jwt.{token}"));
    let reply = server.ask(&ask).await;
    assert_eq!(reply.status, 101);
    assert_eq!(reply.header("sec-websocket-protocol"), Some("chatbox.v1"));
    assert!(!reply.head.contains(&token), "{}", reply.head);
}

#[tokio::test]
async fn a_token_in_the_url_counts_only_where_it_is_allowed() {
    let ask = HandshakeRequest::without_token().line(&format!("GET /chat/ws?device=phone&token={} HTTP/1.1", token()));
    Server::start(&[]).await.ask(&ask).await.is(401, "unauthorized");
    let server = Server::start(&[("CHATBOX__AUTH__ALLOW_QUERY_TOKEN", "true")]).await;
    assert_eq!(say(&mut server.open(&ask).await, "x").await, "ada/phone@127.0.0.1: x");
}

#[tokio::test]
async fn the_first_check_that_fails_answers() {
    let origins = ("CHATBOX__SECURITY__ALLOWED_ORIGINS", r#"["https://app.example.com"]"#);
    let server = Server::start(&[origins, ("CHATBOX__LIMITS__HANDSHAKE_BURST", "100")]).await;
    server.brain.store(false, Ordering::SeqCst);
    // Everything is wrong at first; one thing after the other is put right.
    let mut ask = HandshakeRequest::without_token()
        .line("GET /chat/ws?device=a%20b HTTP/1.1")
        .without("Upgrade")
        .with("Origin", "null");
    let reply = server.ask(&ask).await;
    reply.is(426, "upgrade_required");
    assert_eq!(reply.header("sec-websocket-version"), Some("13"));
    assert_eq!(reply.header("upgrade"), Some("websocket"));
    ask = ask.with("Upgrade", "websocket");
    server.ask(&ask).await.is(403, "origin_not_allowed");
    ask = ask.without("Origin").with("Origin", "https://app.example.com");
    let reply = server.ask(&ask).await;
    reply.is(401, "unauthorized");
    assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    ask = ask.with("Authorization", &format!("Bearer {}", token()));
    let reply = server.ask(&ask).await;
    reply.is(400, "invalid_message");
    assert!(reply.body.contains("\"field\":\"device\""), "{}", reply.body);
    ask = ask.line("GET /chat/ws?device=ab HTTP/1.1");
    let reply = server.ask(&ask).await;
    reply.is(503, "unavailable");
    assert!(reply.header("retry-after").is_some());
    server.brain.store(true, Ordering::SeqCst);
    assert_eq!(server.ask(&ask).await.status, 101);
    server.lifecycle.drain();
    let reply = server.ask(&HandshakeRequest::without_token().without("Upgrade").with("Origin", "null")).await;
    reply.is(503, "unavailable");
    assert!(reply.header("retry-after").is_some());
}

#[tokio::test]
async fn all_bad_tokens_get_one_answer() {
    let server = Server::start(&[]).await;
    let good = token();
    let mut bodies = Vec::new();
    for bad in [
        "x".to_owned(),
        format!("{good}x"),
        token_with(&json!({"sub": "ada", "exp": 1})),
        token_with(&json!({"exp": 4_000_000_000u64})),
        token_with(&json!({"sub": "ada", "exp": 4_000_000_000u64, "nbf": 4_000_000_000u64})),
        format!("{}{}", "a".repeat(9000), good),
    ] {
        let reply =
            server.ask(&HandshakeRequest::without_token().with("Authorization", &format!("Bearer {bad}"))).await;
        reply.is(401, "unauthorized");
        let mut body: Value = serde_json::from_str(&reply.body).expect("json");
        body["error"]["error_id"] = Value::Null;
        bodies.push(body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "the answer must not tell what was wrong: {bodies:?}");
}

#[tokio::test]
async fn without_keys_a_token_may_be_valid_and_the_client_tries_again() {
    // Nothing listens at port 9 of this machine.
    let server = Server::start(&[
        ("CHATBOX__AUTH__JWKS_URL", "http://127.0.0.1:9/jwks.json"),
        ("CHATBOX__AUTH__INSECURE_JWKS_URL", "true"),
    ])
    .await;
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"one"}"#);
    let token = format!("{head}.e30.c2ln");
    let request = HandshakeRequest::without_token().with("Authorization", &format!("Bearer {token}"));
    let reply = server.ask(&request).await;
    reply.is(503, "unavailable");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    let labels = HandshakeLabels { outcome: HandshakeOutcome::NoKeys };
    assert_eq!(server.metrics.handshakes.get_or_create(&labels).get(), 1);
    // The shared secret still checks its tokens.
    server.open(&HandshakeRequest::good()).await;
}

#[tokio::test]
async fn other_paths_and_methods_and_malformed_handshakes() {
    let server = Server::start(&[]).await;
    for line in [
        "GET / HTTP/1.1",
        "GET /ws HTTP/1.1",
        "GET /chat/ws/ HTTP/1.1",
        "GET /chat/../chat/ws HTTP/1.1",
        "POST /chat HTTP/1.1",
    ] {
        server.ask(&HandshakeRequest::good().line(line)).await.is(404, "not_found");
    }
    for method in ["POST", "PUT", "OPTIONS", "DELETE", "CONNECTX"] {
        let reply = server.ask(&HandshakeRequest::good().line(&format!("{method} /chat/ws HTTP/1.1"))).await;
        reply.is(405, "invalid_message");
        assert_eq!(reply.header("allow"), Some("GET"));
    }
    for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ=="] {
        let mut ask = HandshakeRequest::good().with("Sec-WebSocket-Key", key);
        if key.len() < 24 {
            ask = ask.without("Sec-WebSocket-Key").with("Sec-WebSocket-Key", key);
        }
        server.ask(&ask).await.is(400, "invalid_message");
    }
    server
        .ask(&HandshakeRequest::good().without("Sec-WebSocket-Version").with("Sec-WebSocket-Version", "8"))
        .await
        .is(426, "upgrade_required");
}

#[tokio::test]
async fn a_refusal_ends_the_connection_and_pipelined_requests_are_not_answered() {
    let server = Server::start(&[]).await;
    let mut stream = server.connect().await;
    stream.write_all(HandshakeRequest::without_token().text().repeat(20).as_bytes()).await.expect("write");
    let reply = Reply::read(&mut stream).await;
    reply.is(401, "unauthorized");
    assert_eq!(reply.header("connection"), Some("close"));
    let mut rest = Vec::new();
    let end = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("in time");
    assert!(rest.is_empty(), "{end:?} {}", String::from_utf8_lossy(&rest));
    until(|| server.metrics.sockets.get() == 0).await;
    assert_eq!(server.outcomes(HandshakeOutcome::Unauthorized), 1);
}

#[tokio::test]
async fn sockets_without_a_token_are_limited_per_address_and_in_time() {
    let limits = [("CHATBOX__LIMITS__HTTP_SOCKETS_PER_ADDRESS", "3"), ("CHATBOX__LIMITS__HTTP_TIMEOUT_MS", "1000")];
    let server = Server::start(&limits).await;
    let mut socket = server.open(&HandshakeRequest::good()).await;
    assert_eq!(say(&mut socket, "x").await, "ada/@127.0.0.1: x");
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(server.connect().await);
    }
    let reply = Reply::read(&mut server.connect().await).await;
    reply.is(429, "rate_limited");
    assert_eq!((reply.header("retry-after"), reply.header("connection")), (Some("3"), Some("close")));
    assert_eq!(say(&mut socket, "x").await, "ada/@127.0.0.1: x", "an open WebSocket has no slot");
    until(|| server.metrics.sockets.get() == 1).await;
    assert_eq!(server.ask(&HandshakeRequest::good()).await.status, 101);
}

#[tokio::test]
async fn a_full_gateway_refuses_at_once() {
    let server = Server::start(&[("CHATBOX__LIMITS__HTTP_SOCKETS_PER_ADDRESS", "1000")]).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(server.connect().await);
    }
    Reply::read(&mut server.connect().await).await.is(503, "unavailable");
    assert_eq!(server.outcomes(HandshakeOutcome::Full), 1);
    drop(silent);
    until(|| server.metrics.sockets.get() == 0).await;
    assert_eq!(server.ask(&HandshakeRequest::good()).await.status, 101);
}

#[tokio::test]
async fn other_paths_and_methods_are_limited_like_handshakes() {
    let limits = [("CHATBOX__LIMITS__HANDSHAKE_BURST", "2"), ("CHATBOX__LIMITS__HANDSHAKES_PER_MINUTE", "1")];
    let server = Server::start(&limits).await;
    server.ask(&HandshakeRequest::good().line("GET /x HTTP/1.1")).await.is(404, "not_found");
    server.ask(&HandshakeRequest::good().line("POST /chat/ws HTTP/1.1")).await.is(405, "invalid_message");
    server.ask(&HandshakeRequest::good().line("GET /x HTTP/1.1")).await.is(429, "rate_limited");
    let counted = [HandshakeOutcome::NotFound, HandshakeOutcome::Method, HandshakeOutcome::RateLimited];
    assert_eq!(counted.map(|outcome| server.outcomes(outcome)), [1, 1, 1]);
}

#[tokio::test]
async fn a_request_has_one_host() {
    let server = Server::start(&[]).await;
    server.ask(&HandshakeRequest::good().without("Host")).await.is(400, "invalid_message");
    server.ask(&HandshakeRequest::good().with("Host", "other.example.com")).await.is(400, "invalid_message");
}

#[tokio::test]
async fn at_the_limit_new_clients_are_rejected_until_a_connection_ends() {
    let server = Server::start(&[("CHATBOX__LIMITS__MAX_CONNECTIONS", "2")]).await;
    let (first, mut second) =
        (server.open(&HandshakeRequest::good()).await, server.open(&HandshakeRequest::good()).await);
    let reply = server.ask(&HandshakeRequest::good()).await;
    reply.is(503, "unavailable");
    assert!(reply.header("retry-after").is_some());
    assert_eq!(say(&mut second, "x").await, "ada/@127.0.0.1: x");
    drop(first);
    until(|| server.metrics.sockets.get() <= 1).await;
    assert_eq!(server.ask(&HandshakeRequest::good()).await.status, 101);
}

#[tokio::test]
async fn the_handshakes_of_one_address_are_limited() {
    let limits = [("CHATBOX__LIMITS__HANDSHAKE_BURST", "3"), ("CHATBOX__LIMITS__HANDSHAKES_PER_MINUTE", "1")];
    let server = Server::start(&limits).await;
    for _ in 0..3 {
        // Also the failed ones count, and a forged address does not help.
        let ask =
            HandshakeRequest::without_token().with("X-Forwarded-For", &format!("198.51.100.{}", rand::random::<u8>()));
        server.ask(&ask).await.is(401, "unauthorized");
    }
    let reply = server.ask(&HandshakeRequest::good()).await;
    reply.is(429, "rate_limited");
    let wait: u64 = reply.header("retry-after").expect("a hint").parse().expect("seconds");
    assert!((50..=60).contains(&wait), "{wait}");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_forwarded_address_counts() {
    let limits = [
        ("CHATBOX__SECURITY__TRUSTED_PROXIES", r#"["127.0.0.0/8"]"#),
        ("CHATBOX__LIMITS__HANDSHAKE_BURST", "1"),
        ("CHATBOX__LIMITS__HANDSHAKES_PER_MINUTE", "1"),
    ];
    let server = Server::start(&limits).await;
    let from = |address: &str| HandshakeRequest::good().with("X-Forwarded-For", &format!("1.2.3.4, {address}"));
    assert_eq!(say(&mut server.open(&from("198.51.100.1")).await, "x").await, "ada/@198.51.100.1: x");
    server.ask(&from("198.51.100.1")).await.is(429, "rate_limited");
    assert_eq!(server.ask(&from("198.51.100.2")).await.status, 101);
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let server = Server::start(&[]).await;
    let large = HandshakeRequest::good().with("X-Large", &"x".repeat(17_000));
    assert_eq!(server.ask(&large).await.status, 431);
    let many = (0..101).fold(HandshakeRequest::good(), |ask, n| ask.with(&format!("X-{n}"), "x"));
    assert_eq!(server.ask(&many).await.status, 431);
    let fits = (0..80).fold(HandshakeRequest::good(), |ask, n| ask.with(&format!("X-{n}"), "x"));
    assert_eq!(server.ask(&fits).await.status, 101);
}

#[tokio::test]
async fn slow_and_silent_clients_are_closed_while_others_are_served() {
    let server = Server::start(&[("CHATBOX__LIMITS__HEADER_TIMEOUT_MS", "500")]).await;
    let (mut silent, mut slow, mut idle) = (server.connect().await, server.connect().await, server.connect().await);
    idle.write_all(HandshakeRequest::without_token().text().as_bytes()).await.expect("write");
    Reply::read(&mut idle).await.is(401, "unauthorized");
    let begun = tokio::time::Instant::now();
    let drip = async {
        let text = HandshakeRequest::good().text();
        for byte in text.bytes() {
            if slow.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the whole head was taken, a byte at a time");
    };
    let others = async {
        for _ in 0..5 {
            assert_eq!(server.ask(&HandshakeRequest::good()).await.status, 101);
        }
    };
    let ends = async {
        for stream in [&mut silent, &mut idle] {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.expect("a clean end");
        }
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(drip, others, ends) }).await.expect("all within the limit");
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_returns_its_permit() {
    let server = Server::start(&[("CHATBOX__LIMITS__MAX_CONNECTIONS", "1")]).await;
    for _ in 0..20 {
        let mut stream = server.connect().await;
        stream.write_all(HandshakeRequest::good().text().as_bytes()).await.expect("write");
        drop(stream);
        until(|| server.metrics.sockets.get() == 0).await;
    }
    until(|| server.metrics.sockets.get() == 0).await;
    assert_eq!(server.ask(&HandshakeRequest::good()).await.status, 101);
}

#[tokio::test]
async fn closing_ends_the_listener_and_its_http_connections() {
    let server = Server::start(&[]).await;
    let mut idle = server.connect().await;
    let mut socket = server.open(&HandshakeRequest::good()).await;
    server.lifecycle.drain();
    server.closing.cancel();
    let mut rest = Vec::new();
    tokio::time::timeout(LIMIT, idle.read_to_end(&mut rest)).await.expect("in time").expect("a clean end");
    assert_eq!(say(&mut socket, "x").await, "ada/@127.0.0.1: x", "an open socket belongs to whoever serves it");
    drop(socket);
    assert!(server.lifecycle.shut_down(LIMIT).await);
    assert!(TcpStream::connect(server.address).await.is_err());
}
