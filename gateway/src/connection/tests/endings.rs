//! How connections end, and that client, brain and registry are told.

use chatbox_shared::proto::{brain_frame, gateway_frame};
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::*;

async fn told(link: &mut FakeLink, conn: u64) {
    match link.next().await {
        gateway_frame::Frame::Close(close) => assert_eq!(close.conn, conn),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let (mut client, conn) = gateway.joined(&mut link).await;
    client.0.close(None).await.expect("close");
    assert!(matches!(client.next().await, Message::Close(_)), "its close is answered");
    told(&mut link, conn).await;
    gateway.empty().await;

    let (client, conn) = gateway.joined(&mut link).await;
    drop(client);
    told(&mut link, conn).await;
    gateway.empty().await;
    assert_eq!(gateway.context.metrics.connections.get(), 0);
}

#[tokio::test]
async fn a_kick_comes_after_what_was_acknowledged_and_with_its_notice() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let (mut client, conn) = gateway.joined(&mut link).await;
    client.send(json!({"type": "session_end", "id": "e", "session_id": S})).await;
    let request = link.request().await;
    link.reply(&request, None).await;
    let notice =
        Some(proto::Notice { code: "connection_replaced".into(), message: "Replaced.".into(), ..Default::default() });
    link.send(brain_frame::Frame::Kick(proto::Kick { conn, close_code: 4002, notice })).await;
    link.deliver(&[conn], 0, session()).await;
    assert_eq!(client.json().await, json!({"type": "ack", "reply_to": "e"}));
    assert_eq!(client.json().await, json!({"type": "notice", "code": "connection_replaced", "message": "Replaced."}));
    assert_eq!(client.closed().await, 4002);
    told(&mut link, conn).await;
}

#[tokio::test]
async fn a_kick_does_not_wait_for_a_client_that_does_not_read() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let client = gateway.narrow("u1").await;
    let conn = link.open().await.conn;
    link.deliver(&[conn], 0, delta(0, &"x".repeat(10_000))).await;
    let kicked = tokio::time::Instant::now();
    link.send(brain_frame::Frame::Kick(proto::Kick { conn, close_code: 4003, notice: None })).await;
    told(&mut link, conn).await;
    assert!(kicked.elapsed() < Duration::from_secs(4), "{:?}", kicked.elapsed());
    drop(client);
}

#[tokio::test]
async fn the_idle_timeout_ends_a_connection_and_pongs_keep_it() {
    let (gateway, mut link) =
        Gateway::with_brain(ConnectionSettings { heartbeat_interval: Duration::from_millis(150), ..settings() }).await;
    let mut silent = gateway.tcp(Gateway::accepted("u2", Timestamp(i64::MAX))).await;
    let conn = link.open().await.conn;
    let (mut awake, _) = gateway.joined(&mut link).await;
    // Reading is what makes this client answer pings.
    tokio::select! {
        early = awake.next() => panic!("{early:?}"),
        () = told(&mut link, conn) => {}
    }
    let mut bytes = Vec::new();
    silent.read_to_end(&mut bytes).await.expect("read");
    let close = [&[0x88, 19][..], &4009_u16.to_be_bytes(), b"heartbeat timeout"].concat();
    assert!(bytes.ends_with(&close), "{:?}", String::from_utf8_lossy(&bytes));
    awake.send(json!({"type": "ping"})).await;
    assert_eq!(awake.json().await["type"], "pong");
}

#[tokio::test]
async fn a_slow_brain_does_not_count_as_an_idle_client_but_a_dead_socket_does() {
    let limits = ConnectionSettings { heartbeat_interval: Duration::from_millis(100), max_in_flight: 1, ..settings() };
    let (gateway, mut link) = Gateway::with_brain(limits).await;
    let (mut client, conn) = gateway.joined(&mut link).await;
    client.send(json!({"type": "session_end", "id": "e", "session_id": S})).await;
    let request = link.request().await;
    let early = tokio::time::timeout(Duration::from_millis(600), client.next()).await;
    assert!(early.is_err(), "{early:?}");
    link.reply(&request, None).await;
    assert_eq!(client.json().await["reply_to"], "e");
    drop(client);
    told(&mut link, conn).await;

    // The reply waits behind more than the pipe and the WebSocket hold, so its request is never done.
    let mut dead = gateway.narrow("u1").await;
    let conn = link.open().await.conn;
    dead.send(json!({"type": "session_end", "id": "e", "session_id": S})).await;
    let request = link.request().await;
    link.deliver(&[conn], 0, delta(0, &"x".repeat(10_000))).await;
    link.reply(&request, None).await;
    told(&mut link, conn).await;
    let code = crate::metrics::CloseLabels { code: crate::metrics::CloseLabel::Heartbeat };
    assert_eq!(gateway.context.metrics.closes.get_or_create(&code).get(), 1);
}

#[tokio::test]
async fn a_token_ends_with_a_warning() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let mut client =
        Client::new(gateway.tcp(Gateway::accepted("u1", now().plus(Duration::from_millis(200)))).await).await;
    link.open().await;
    assert_eq!(client.json().await["type"], "welcome");
    assert_eq!(client.json().await["code"], "token_expiring");
    assert_eq!(client.closed().await, 4001);
}

#[tokio::test]
async fn a_bad_or_foreign_token_ends_the_connection() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let later = now().plus(Duration::from_secs(3600));
    for token in [token("u2", later), "x.y.z".to_owned(), token("u1", now().minus(Duration::from_secs(600)))] {
        let (mut client, conn) = gateway.joined(&mut link).await;
        client.send(json!({"type": "token_refresh", "id": "t", "token": token})).await;
        let error = client.json().await;
        assert_eq!((&error["code"], &error["reply_to"]), (&json!("unauthorized"), &json!("t")));
        assert_eq!(client.closed().await, 4001);
        drop(client);
        told(&mut link, conn).await;
    }
}

#[tokio::test]
async fn a_drain_tells_everyone_and_spreads_the_ends() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let window = Duration::from_millis(600);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(gateway.joined(&mut link).await.0);
    }
    let registry = Arc::clone(&gateway.context.registry);
    gateway.lifecycle.spawn(async move { registry.drain(window).await });
    let mut waits = Vec::new();
    for client in &mut clients {
        let notice = client.json().await;
        assert_eq!(notice["code"], "server_draining");
        waits.push(notice["reconnect_after_ms"].as_u64().expect("a time"));
    }
    assert!(waits.iter().all(|wait| *wait <= 600), "{waits:?}");
    assert!(waits.iter().max().zip(waits.iter().min()).is_some_and(|(max, min)| max - min > 100), "{waits:?}");
    for client in &mut clients {
        assert_eq!(client.closed().await, 1012);
    }
    drop(clients);
    gateway.empty().await;
}

#[tokio::test]
async fn a_connection_after_close_all_is_closed_at_once() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    gateway.context.registry.drain(Duration::ZERO).await;
    let mut late = gateway.connect("u1").await;
    let conn = link.open().await.conn;
    assert_eq!(late.json().await["type"], "welcome");
    assert_eq!(late.closed().await, 1012);
    drop(late);
    told(&mut link, conn).await;
    gateway.empty().await;
}

/// A clock that panics once when it is told to.
#[derive(Debug, Default)]
struct Trap(std::sync::atomic::AtomicBool);

impl Clock for Trap {
    fn now(&self) -> Timestamp {
        assert!(!self.0.swap(false, std::sync::atomic::Ordering::SeqCst), "as the test wants it");
        SystemClock.now()
    }
}

#[tokio::test]
async fn a_panic_ends_one_connection_and_no_other() {
    let (mut gateway, mut link) = Gateway::with_brain(settings()).await;
    let trap = Arc::new(Trap::default());
    gateway.context =
        Arc::new(ConnectionContext { clock: Arc::clone(&trap) as Arc<dyn Clock>, ..(*gateway.context).clone() });
    let (mut other, _) = gateway.joined(&mut link).await;
    let (mut client, conn) = gateway.joined(&mut link).await;
    trap.0.store(true, std::sync::atomic::Ordering::SeqCst);
    let token = token("u1", now().plus(Duration::from_secs(3600)));
    client.send(json!({"type": "token_refresh", "id": "t", "token": token})).await;
    assert_eq!(client.closed().await, 1011);
    told(&mut link, conn).await;
    other.send(json!({"type": "ping"})).await;
    assert_eq!(other.json().await["type"], "pong");
    let metrics = &gateway.context.metrics;
    eventually("it is forgotten", || metrics.connections.get() == 1).await;
    let code = crate::metrics::CloseLabels { code: crate::metrics::CloseLabel::Internal };
    assert_eq!(metrics.closes.get_or_create(&code).get(), 1);
}

#[tokio::test]
async fn a_stopping_process_ends_its_connections_and_links() {
    let mut brain = FakeBrain::start("brain-a", &Lifecycle::new()).await;
    let gateway = Gateway::start(settings(), &[&brain], Lifecycle::new());
    let mut link = brain.link().await;
    gateway.links(1).await;
    let (mut client, conn) = gateway.joined(&mut link).await;
    gateway.lifecycle.drain();
    client.send(json!({"type": "session_list", "id": "l"})).await;
    let request = link.request().await;
    link.reply(&request, Some(Say::Sessions(proto::Sessions::default()))).await;
    assert_eq!(client.json().await["reply_to"], "l", "a drain alone ends nothing that works");
    gateway.lifecycle.stopping().cancel();
    assert_eq!(client.closed().await, 1001);
    drop(client);
    told(&mut link, conn).await;
    gateway.empty().await;
}
