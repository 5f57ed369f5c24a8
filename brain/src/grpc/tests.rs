//! A gateway's frames in, a brain's frames out, over a real store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chatbox_shared::auth::Principal;
use chatbox_shared::clock::{Clock, SystemClock};
use chatbox_shared::config::load_from;
use chatbox_shared::ids::{ClientMessageId, ConnectionId, SessionId, UserId};
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::proto::{
    self, Deliver, brain_frame, client_message::Message as Ask, gateway_frame, server_message::Message,
};
use prometheus_client::registry::Registry;
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connections::Connections;
use super::gateway::Gateway;
use super::parts::LinkParts;
use super::send_queue::{SendQueueReader, send_queue};
use crate::config::BrainConfig;
use crate::llm::endpoint::Endpoints;
use crate::metrics::Metrics;
use crate::reload::tunables;
use crate::service::context::Context;
use crate::service::messages::{self, NewMessage};
use crate::session::registry::Sessions;
use crate::store::Store;
use crate::store::keyring::Keyring;
use crate::store::observed::Observed;
use crate::store::sqlite::SqliteStore;
use crate::tunables::LiveConfig;
use crate::turn::turns::{TurnSettings, Turns};

/// Longer than anything but a hang.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One attached gateway with its connection 1, of the user `u`.
struct Harness {
    gateway: Gateway,
    frames: SendQueueReader,
    cx: Context,
    folder: tempfile::TempDir,
    requests: u32,
}

fn principal(user: &str, roles: &[&str]) -> proto::Principal {
    let roles = roles.iter().map(ToString::to_string).collect();
    proto::Principal { user_id: user.into(), name: String::new(), roles }
}

impl Harness {
    async fn start(user: &str, roles: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inner = Arc::new(SqliteStore::open(&folder.path().join("chat.db")).unwrap());
        inner.migrate().await.unwrap();
        let store = Observed::wrap(inner, Duration::from_secs(5), &mut Registry::default());
        let line = Keyring::generate_line("k1").unwrap();
        let variables = [("CHATBOX__KEYS__KEYRING", line.as_str()), ("CHATBOX__LINK__INSECURE", "true")];
        let config = load_from::<BrainConfig>(None, variables).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let live_config = Arc::new(LiveConfig::new(tunables(&config, &clock, &Endpoints::default()).unwrap()));
        let lifecycle = Lifecycle::new();
        let sessions = Arc::new(Sessions::new(store, config.keyring().unwrap(), lifecycle.clone()));
        let metrics = Arc::new(Metrics::new(&mut Registry::default()));
        let settings = TurnSettings {
            owner: "brain".into(),
            lease: Duration::from_secs(5),
            checkpoint: Duration::from_secs(1),
            checkpoint_bytes: 2048,
            max_attempts: 3,
            sweep_interval: Duration::from_secs(1),
        };
        let turns = Turns::new(Arc::clone(&sessions), Arc::clone(&live_config), settings, Arc::clone(&metrics));
        let cx = Context { sessions, turns: Arc::new(turns), live_config };
        let parts = LinkParts {
            brain_id: "brain".into(),
            context: cx.clone(),
            connections: Connections::default(),
            store_prepared: watch::channel(true).1,
            lifecycle,
            leave: CancellationToken::new(),
            detach: CancellationToken::new(),
            metrics,
        };
        let (queue, frames) = send_queue();
        let gateway = Gateway::new(Arc::new(parts), "gateway".into(), queue);
        let mut harness = Self { gateway, frames, cx, folder, requests: 0 };
        harness.connect(user, roles, Vec::new());
        harness
    }

    fn connect(&mut self, user: &str, roles: &[&str], resume: Vec<proto::Resume>) {
        self.gateway.take(gateway_frame::Frame::Open(proto::Open {
            conn: 1,
            connection_id: ConnectionId::generate().to_string(),
            principal: Some(principal(user, roles)),
            resume,
            ..proto::Open::default()
        }));
    }

    fn ask(&mut self, message: Ask) -> u32 {
        self.requests += 1;
        let message = Some(proto::ClientMessage { message: Some(message) });
        let request_no = self.requests;
        self.gateway.take(gateway_frame::Frame::Request(proto::Request { conn: 1, request_no, message }));
        request_no
    }

    fn open(&mut self, session: SessionId) -> u32 {
        let session_id = session.to_string();
        self.ask(Ask::SessionOpen(proto::SessionOpen { session_id, create: true, ..proto::SessionOpen::default() }))
    }

    async fn next(&mut self) -> brain_frame::Frame {
        let frame = tokio::time::timeout(TIMEOUT, self.frames.next()).await.expect("a frame in time");
        frame.and_then(|frame| frame.frame).expect("a frame")
    }

    /// The next frame, which is the reply to this request.
    async fn replied(&mut self, request_no: u32) -> Option<Message> {
        match self.next().await {
            brain_frame::Frame::Reply(reply) if reply.request_no == request_no => {
                reply.message.and_then(|it| it.message)
            }
            other => panic!("expected the reply to {request_no}, got {other:?}"),
        }
    }

    /// Skips frames until one asks for a receipt, and returns its number.
    async fn paced(&mut self) -> u64 {
        loop {
            if let brain_frame::Frame::Deliver(Deliver { receipt: receipt @ 1.., .. }) = self.next().await {
                return receipt;
            }
        }
    }

    /// Skips frames until the session is ready.
    async fn ready(&mut self) {
        loop {
            if let brain_frame::Frame::Deliver(deliver) = self.next().await
                && let Ok(message) = proto::ServerMessage::decode(deliver.message)
                && matches!(message.message, Some(Message::SessionReady(_)))
            {
                return;
            }
        }
    }

    /// A session of `u` with so much text that its replay waits for the client. A human assists in it, so nothing answers.
    async fn long_session(&self) -> SessionId {
        let id = SessionId::generate();
        let owner = Principal { user: UserId::new("u"), name: None, roles: Vec::new() };
        let admin = Principal { user: UserId::new("ada"), name: None, roles: vec!["admin".into()] };
        self.cx.sessions.create(id, &owner.user, "demo".into(), "long").await.unwrap();
        crate::service::takeover::join(&self.cx, &admin, id).await.unwrap();
        for _ in 0..8 {
            let client_msg_id = ClientMessageId::generate();
            let message = NewMessage { session: id, client_msg_id, content: "x".repeat(20_000) };
            messages::by_owner(&self.cx, &owner, message).await.unwrap();
        }
        id
    }
}

fn list() -> Ask {
    Ask::SessionList(proto::SessionList::default())
}

fn code(message: Option<Message>) -> String {
    match message {
        Some(Message::Error(error)) => error.code,
        other => panic!("expected an error, got {other:?}"),
    }
}

#[tokio::test]
async fn requests_behind_others_are_refused_in_time_while_the_store_does_not_answer() {
    let mut harness = Harness::start("u", &[]).await;
    let session = SessionId::generate();
    let opened = harness.open(session);
    harness.replied(opened).await;
    harness.ready().await;
    let other = rusqlite::Connection::open(harness.folder.path().join("chat.db")).unwrap();
    other.busy_timeout(TIMEOUT).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked = Instant::now();
    let requests: Vec<_> = (0..3)
        .map(|_| {
            let (session_id, client_msg_id) = (session.to_string(), ClientMessageId::generate().to_string());
            let content = "hello".into();
            harness.ask(Ask::UserMessage(proto::UserMessage {
                session_id,
                client_msg_id,
                content,
                attachments: vec![],
            }))
        })
        .collect();
    for request in requests {
        assert_eq!(code(harness.replied(request).await), "storage_unavailable");
    }
    assert!(asked.elapsed() < Duration::from_secs(7), "{:?}", asked.elapsed());
    other.execute_batch("ROLLBACK").unwrap();
}

#[tokio::test]
async fn a_replay_delays_no_request_and_ends_when_its_session_is_closed() {
    let mut harness = Harness::start("u", &[]).await;
    let session = harness.long_session().await;
    let opened = harness.open(session);
    assert!(matches!(harness.replied(opened).await, Some(Message::Session(_))));
    let receipt = harness.paced().await;
    let listed = harness.ask(list());
    assert!(matches!(harness.replied(listed).await, Some(Message::Sessions(_))));
    let closed = harness.ask(Ask::SessionClose(proto::SessionClose { session_id: session.to_string() }));
    assert_eq!(harness.replied(closed).await, None);
    harness.gateway.take(gateway_frame::Frame::Receipt(proto::Receipt { conn: 1, receipt }));
    let listed = harness.ask(list());
    assert!(matches!(harness.replied(listed).await, Some(Message::Sessions(_))));
    let again = harness.open(session);
    assert!(matches!(harness.replied(again).await, Some(Message::Session(_))));
    harness.paced().await;
}

#[tokio::test]
async fn an_admin_who_loses_the_role_gets_no_further_part_of_a_replay() {
    let mut harness = Harness::start("bob", &["admin"]).await;
    let session = harness.long_session().await;
    let session_id = session.to_string();
    let watched = harness.ask(Ask::AdminWatch(proto::AdminWatch { session_id: session_id.clone(), after_seq: 0 }));
    assert!(matches!(harness.replied(watched).await, Some(Message::Session(_))));
    let receipt = harness.paced().await;
    let refresh = proto::Refresh { conn: 1, principal: Some(principal("bob", &[])) };
    harness.gateway.take(gateway_frame::Frame::Refresh(refresh));
    harness.gateway.take(gateway_frame::Frame::Receipt(proto::Receipt { conn: 1, receipt }));
    // The session accepts a live event, which reaches nobody.
    let live = harness.cx.sessions.get(session).await.unwrap().unwrap();
    live.publish_view();
    let typing = harness.ask(Ask::Typing(proto::Typing { session_id, active: true }));
    assert_eq!(code(harness.replied(typing).await), "not_found");
    assert!(!live.read(crate::session::live::Live::is_followed));
}

#[tokio::test]
async fn a_moved_connection_follows_its_sessions_again_unless_it_has_closed_them() {
    let mut harness = Harness::start("u", &[]).await;
    let (kept, closed) = (harness.long_session().await, harness.long_session().await);
    let seq = harness.cx.sessions.get(kept).await.unwrap().unwrap().seq();
    let resume = |session: SessionId| proto::Resume {
        session_id: session.to_string(),
        after_seq: seq,
        ..proto::Resume::default()
    };
    harness.connect("u", &[], vec![resume(kept), resume(closed)]);
    let request = harness.ask(Ask::SessionClose(proto::SessionClose { session_id: closed.to_string() }));
    // The ready of the session that is kept, and the reply to the request, in either order.
    let frames = [harness.next().await, harness.next().await];
    assert!(frames.iter().any(|frame| matches!(frame, brain_frame::Frame::Deliver(_))), "{frames:?}");
    let replied =
        |frame: &brain_frame::Frame| matches!(frame, brain_frame::Frame::Reply(it) if it.request_no == request);
    assert!(frames.iter().any(replied), "{frames:?}");
    let listed = harness.ask(list());
    harness.replied(listed).await;
}

#[tokio::test]
async fn a_connection_has_a_limited_number_of_sessions_open() {
    let mut harness = Harness::start("u", &[]).await;
    let max = harness.cx.tunables().limits.open_sessions;
    let first = SessionId::generate();
    for at in 0..max {
        let request = harness.open(if at == 0 { first } else { SessionId::generate() });
        harness.replied(request).await;
        harness.ready().await;
    }
    let refused = harness.open(SessionId::generate());
    assert_eq!(code(harness.replied(refused).await), "conflict");
    let again = harness.open(first);
    assert!(matches!(harness.replied(again).await, Some(Message::Session(_))));
    harness.ready().await;
    let closed = harness.ask(Ask::SessionClose(proto::SessionClose { session_id: first.to_string() }));
    harness.replied(closed).await;
    let another = harness.open(SessionId::generate());
    assert!(matches!(harness.replied(another).await, Some(Message::Session(_))));
}
