//! The connection loop between a real socket and a real link. The tests play the client and the brain.

mod endings;
mod limits;
mod moves;
mod talk;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chatbox_link::LinkSettings;
use chatbox_link::fake::{FakeBrain, FakeLink};
use chatbox_shared::auth::{Options, Principal, TokenVerifier, Verified};
use chatbox_shared::clock::{Clock, SystemClock, Timestamp};
use chatbox_shared::ids::{ConnectionId, UserId};
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::proto::{self, server_message::Message as Say};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::protocol::Role;

use super::{Accepted, ConnectionContext, ConnectionSettings, serve, websocket_config};
use crate::metrics::Metrics;
use crate::registry::ConnectionRegistry;

const TIMEOUT: Duration = Duration::from_secs(10);
const SECRET: &str = "kT7w!nB4xQz9vR2mL6pY8cJ3hF5dG1sA";
const S: &str = "0190f3c0-0000-7000-8000-000000000001";

/// A gateway without its listener.
struct Gateway {
    context: Arc<ConnectionContext>,
    lifecycle: Lifecycle,
}

fn settings() -> ConnectionSettings {
    ConnectionSettings {
        max_frame_bytes: 65_536,
        max_invalid_frames: 20,
        requests_per_second: 1_000,
        request_burst: 1_000,
        max_in_flight: 32,
        outbound_queue_bytes: 262_144,
        heartbeat_interval: Duration::from_secs(25),
    }
}

impl Gateway {
    fn start(settings: ConnectionSettings, brains: &[&FakeBrain], lifecycle: Lifecycle) -> Self {
        let metrics = Metrics::default();
        let registry = ConnectionRegistry::new(metrics.clone());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = Options { hs256_secret: Some(SECRET.into()), ..Options::default() };
        let endpoint = |brain: &&FakeBrain| format!("http://{}", brain.address).parse().expect("endpoint");
        let link_settings = LinkSettings {
            name: "gateway-1".into(),
            endpoints: brains.iter().map(endpoint).collect(),
            resolve_interval: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(3),
            tls: None,
        };
        let verifier = Arc::new(TokenVerifier::new(options, Arc::clone(&clock), &lifecycle).expect("verifier"));
        let unused = Arc::clone(&registry).links_unused(lifecycle.clone());
        let events = Arc::clone(&registry) as Arc<dyn chatbox_link::LinkEvents>;
        let links = chatbox_link::start(link_settings, events, metrics.links.clone(), &lifecycle, unused);
        let context = Arc::new(ConnectionContext { registry, links, verifier, settings, metrics, clock });
        Self { context, lifecycle }
    }

    /// With one brain and the link to it.
    async fn with_brain(settings: ConnectionSettings) -> (Self, FakeLink) {
        let lifecycle = Lifecycle::new();
        let mut brain = FakeBrain::start("brain-a", &lifecycle).await;
        let gateway = Self::start(settings, &[&brain], lifecycle);
        let link = brain.link().await;
        gateway.links(1).await;
        (gateway, link)
    }

    /// Waits until so many links are up.
    async fn links(&self, count: usize) {
        eventually("links", || self.context.links.ready() == count).await;
    }

    async fn empty(&self) {
        tokio::time::timeout(TIMEOUT, self.context.registry.emptied()).await.expect("everybody leaves");
    }

    fn accepted(user: &str, expires_at: Timestamp) -> Accepted {
        let principal = Principal { user: UserId::new(user), name: Some("Uma".into()), roles: vec!["tester".into()] };
        Accepted {
            id: ConnectionId::generate(),
            verified: Verified { principal, expires_at },
            device: Some("phone".into()),
            remote_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    async fn serve<T>(&self, accepted: Accepted, socket: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = websocket_config(&self.context.settings);
        let socket = WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await;
        self.lifecycle.spawn(serve(Arc::clone(&self.context), accepted, socket));
    }

    /// Both ends of a TCP connection, the far one served.
    async fn tcp(&self, accepted: Accepted) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let near = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connect");
        let (far, _) = listener.accept().await.expect("accept");
        self.serve(accepted, far).await;
        near
    }

    /// A client, its welcome not read yet.
    async fn connect(&self, user: &str) -> Client<TcpStream> {
        Client::new(self.tcp(Self::accepted(user, Timestamp(i64::MAX))).await).await
    }

    /// A client that read its welcome, and its number at the brain.
    async fn joined(&self, link: &mut FakeLink) -> (Client<TcpStream>, u64) {
        let mut client = self.connect("u1").await;
        assert_eq!(client.json().await["type"], "welcome");
        (client, link.open().await.conn)
    }

    /// A client behind a pipe that holds very little, its welcome not read yet.
    async fn narrow(&self, user: &str) -> Client<DuplexStream> {
        let (near, far) = tokio::io::duplex(1024);
        self.serve(Self::accepted(user, Timestamp(i64::MAX)), far).await;
        Client::new(near).await
    }
}

async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

/// The other end of the socket.
struct Client<T>(WebSocketStream<T>);

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    async fn new(socket: T) -> Self {
        Self(WebSocketStream::from_raw_socket(socket, Role::Client, None).await)
    }

    async fn send(&mut self, frame: Value) {
        self.text(&frame.to_string()).await;
    }

    async fn text(&mut self, frame: &str) {
        self.0.send(Message::text(frame)).await.expect("send");
    }

    /// The next frame that is not a ping.
    async fn next(&mut self) -> Message {
        loop {
            let message = tokio::time::timeout(TIMEOUT, self.0.next()).await.expect("a frame in time");
            match message.expect("not the end").expect("no error") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    async fn json(&mut self) -> Value {
        match self.next().await {
            Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("{other:?} instead of a text"),
        }
    }

    /// The code of the close that comes next.
    async fn closed(&mut self) -> u16 {
        match self.next().await {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("{other:?} instead of a close"),
        }
    }
}

fn token(user: &str, expires_at: Timestamp) -> String {
    let claims = json!({"sub": user, "exp": expires_at.0 / 1000, "roles": ["fresh"]});
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(json!({"alg": "HS256", "typ": "JWT"})), part(claims));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn delta(index: u64, text: &str) -> Say {
    Say::AiDelta(proto::AiDelta { session_id: S.into(), seq: 2, attempt: 1, index, count: 1, delta: text.into() })
}

fn entry(seq: u64, state: proto::EntryState) -> Say {
    let answer = proto::Answer { reply_to_seq: 1, attempt: 1, ..Default::default() };
    let entry = proto::Entry { seq, rev: 1, state: state.into(), answer: Some(answer), ..Default::default() };
    Say::Entry(proto::EntryEvent { session_id: S.into(), entry: Some(entry) })
}

fn session() -> Say {
    let session = proto::Session { id: S.into(), epoch: "e1".into(), ..Default::default() };
    Say::Session(proto::SessionInfo { session: Some(session), ..Default::default() })
}
