//! Brains that leave and come back while the sockets stay open.

use chatbox_shared::proto::{EntryState, brain_frame, gateway_frame};
use serde_json::json;

use super::*;

/// Opens the session and receives part of an answer in it.
async fn in_the_middle(client: &mut Client<TcpStream>, link: &mut FakeLink, conn: u64) {
    client.send(json!({"type": "session_open", "id": "o", "session_id": S})).await;
    let open = link.request().await;
    link.reply(&open, Some(session())).await;
    link.deliver(&[conn], 0, entry(1, EntryState::Final)).await;
    link.deliver(&[conn], 0, entry(2, EntryState::Streaming)).await;
    link.deliver(&[conn], 0, Say::SessionReady(proto::SessionReady { session_id: S.into(), seq: 2 })).await;
    link.deliver(&[conn], 0, delta(0, "Hel")).await;
    for kind in ["session", "entry", "entry", "session_ready", "ai_delta"] {
        assert_eq!(client.json().await["type"], kind);
    }
}

fn resumed() -> proto::Resume {
    proto::Resume {
        session_id: S.into(),
        after_seq: 1,
        epoch: "e1".into(),
        watch: false,
        streaming_seq: 2,
        streaming_attempt: 1,
        streaming_next_index: 1,
    }
}

#[tokio::test]
async fn a_lost_link_is_made_again_and_the_client_never_knows() {
    let lifecycle = Lifecycle::new();
    let mut brain = FakeBrain::start("brain-a", &lifecycle).await;
    let gateway = Gateway::start(settings(), &[&brain], lifecycle);
    let mut link = brain.link().await;
    gateway.links(1).await;
    let (mut client, conn) = gateway.joined(&mut link).await;
    in_the_middle(&mut client, &mut link, conn).await;
    client.send(json!({"type": "session_rename", "id": "r", "session_id": S, "name": "a"})).await;
    client.send(json!({"type": "session_list", "id": "l"})).await;
    let (rename, list) = (link.request().await, link.request().await);

    drop(link);
    let mut link = brain.link().await;
    let open = link.open().await;
    assert_eq!((open.conn, open.resume), (conn, vec![resumed()]));
    assert_eq!((link.request().await, link.request().await), (rename.clone(), list.clone()), "again, in order");
    link.reply(&rename, None).await;
    link.reply(&list, Some(Say::Sessions(proto::Sessions::default()))).await;
    link.deliver(&[conn], 0, Say::SessionReady(proto::SessionReady { session_id: S.into(), seq: 2 })).await;
    link.deliver(&[conn], 0, entry(2, EntryState::Streaming)).await;
    link.deliver(&[conn], 0, delta(0, "Hel")).await;
    link.deliver(&[conn], 0, delta(1, "lo")).await;
    assert_eq!(client.json().await, json!({"type": "ack", "reply_to": "r"}));
    assert_eq!(client.json().await["reply_to"], "l");
    let next = client.json().await;
    assert_eq!((&next["index"], &next["delta"]), (&json!(1), &json!("lo")), "nothing it had already");
    assert_eq!(gateway.context.metrics.links.reattached.get(), 1);
}

#[tokio::test]
async fn what_still_waits_for_a_slow_client_counts_as_received() {
    let lifecycle = Lifecycle::new();
    let mut brain = FakeBrain::start("brain-a", &lifecycle).await;
    let gateway = Gateway::start(settings(), &[&brain], lifecycle);
    let mut link = brain.link().await;
    gateway.links(1).await;
    let mut client = gateway.narrow("u1").await;
    let conn = link.open().await.conn;
    client.send(json!({"type": "session_open", "id": "o", "session_id": S})).await;
    let open = link.request().await;
    link.reply(&open, Some(session())).await;
    for seq in 1..=20 {
        link.deliver(&[conn], 0, entry(seq, EntryState::Final)).await;
    }
    // The welcome fills the pipe, so all of it waits. The link ends after it was taken, for it keeps the order.
    drop(link);
    let mut link = brain.link().await;
    let open = link.open().await;
    assert_eq!(open.resume.iter().map(|resume| resume.after_seq).collect::<Vec<_>>(), [20]);
    link.deliver(&[conn], 0, entry(21, EntryState::Final)).await;
    assert_eq!(client.json().await["type"], "welcome");
    assert_eq!(client.json().await["reply_to"], "o", "answered once, not asked again");
    for seq in 1..=21 {
        assert_eq!(client.json().await["entry"]["seq"], seq);
    }
}

#[tokio::test]
async fn receipts_for_the_old_brain_are_not_given_to_the_new_one() {
    let lifecycle = Lifecycle::new();
    let mut brain = FakeBrain::start("brain-a", &lifecycle).await;
    let gateway = Gateway::start(settings(), &[&brain], lifecycle);
    let mut link = brain.link().await;
    gateway.links(1).await;
    let mut client = gateway.narrow("u1").await;
    let conn = link.open().await.conn;
    // Some of it is in the WebSocket's own buffer and not flushed, the rest is in the queue.
    for receipt in 1..=40 {
        link.deliver(&[conn], 100 + receipt, entry(receipt, EntryState::Final)).await;
    }
    eventually("some are written", || gateway.context.metrics.frames_out.get() > 10).await;
    drop(link);
    let mut link = brain.link().await;
    assert_eq!(link.open().await.conn, conn);
    link.deliver(&[conn], 1, entry(41, EntryState::Final)).await;
    assert_eq!(client.json().await["type"], "welcome");
    for seq in 1..=41 {
        assert_eq!(client.json().await["entry"]["seq"], seq);
    }
    match link.next().await {
        gateway_frame::Frame::Receipt(receipt) => assert_eq!((receipt.conn, receipt.receipt), (conn, 1)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_draining_brain_is_left_for_another() {
    let lifecycle = Lifecycle::new();
    let mut brains = [FakeBrain::start("brain-a", &lifecycle).await, FakeBrain::start("brain-b", &lifecycle).await];
    let gateway = Gateway::start(settings(), &[&brains[0], &brains[1]], lifecycle);
    let [a, b] = &mut brains;
    let (mut link_a, mut link_b) = (a.link().await, b.link().await);
    gateway.links(2).await;
    // Whoever the user falls to is `old`.
    let mut client = gateway.connect("u1").await;
    client.json().await;
    let (conn, mut old, mut new) = tokio::select! {
        open = link_a.open() => (open.conn, link_a, link_b),
        open = link_b.open() => (open.conn, link_b, link_a),
    };
    in_the_middle(&mut client, &mut old, conn).await;

    old.send(brain_frame::Frame::Drain(proto::Drain {})).await;
    let open = new.open().await;
    assert_eq!((open.conn, open.resume), (conn, vec![resumed()]));
    match old.next().await {
        gateway_frame::Frame::Close(close) => assert_eq!(close.conn, conn),
        other => panic!("{other:?}"),
    }
    old.ended().await;
    new.deliver(&[conn], 0, delta(1, "lo")).await;
    assert_eq!(client.json().await["delta"], "lo");
    // Somebody else of the same user goes to the same brain.
    let _other = gateway.connect("u1").await;
    new.open().await;
}

#[tokio::test]
async fn a_brain_of_another_version_is_refused() {
    let lifecycle = Lifecycle::new();
    let other = FakeBrain::start_with("old", proto::LINK_VERSION + 1, &lifecycle).await;
    let mut brain = FakeBrain::start("brain-a", &lifecycle).await;
    let gateway = Gateway::start(settings(), &[&other, &brain], lifecycle);
    let mut link = brain.link().await;
    gateway.links(1).await;
    for user in 0..10 {
        let client = gateway.connect(&format!("u{user}")).await;
        link.open().await;
        drop(client);
        match link.next().await {
            gateway_frame::Frame::Close(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gateway.context.links.ready(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_any_brain_a_request_fails_soon_and_may_be_tried_again() {
    let gateway = Gateway::start(settings(), &[], Lifecycle::new());
    let mut client = gateway.narrow("u1").await;
    assert_eq!(client.json().await["type"], "welcome");
    let asked = tokio::time::Instant::now();
    client.send(json!({"type": "session_list", "id": "l"})).await;
    let error = client.json().await;
    assert_eq!(
        (&error["code"], &error["reply_to"], &error["retryable"]),
        (&json!("unavailable"), &json!("l"), &json!(true))
    );
    let waited = asked.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&waited), "{waited:?}");
    client.send(json!({"type": "ping"})).await;
    assert_eq!(client.json().await["type"], "pong");
}

#[tokio::test]
async fn requests_wait_for_a_brain_that_comes_in_time() {
    let lifecycle = Lifecycle::new();
    let mut brain = FakeBrain::start("brain-a", &lifecycle).await;
    let gateway = Gateway::start(settings(), &[&brain], lifecycle);
    let mut client = gateway.narrow("u1").await;
    assert_eq!(client.json().await["type"], "welcome");
    client.send(json!({"type": "session_list", "id": "l"})).await;
    let mut link = brain.link().await;
    link.open().await;
    let request = link.request().await;
    link.reply(&request, Some(Say::Sessions(proto::Sessions::default()))).await;
    assert_eq!(client.json().await["reply_to"], "l");
}

/// A brain that acknowledges everything, but is cut off again and again, after ever another number of frames.
async fn cut_off(mut brain: FakeBrain) {
    for frames in (1..).map(|round| 30 + round * 37 % 101) {
        let mut link = brain.link().await;
        for _ in 0..frames {
            if let gateway_frame::Frame::Request(request) = link.next().await {
                link.reply(&request, None).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_at_any_time_lose_and_double_nothing() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 200;
    let lifecycle = Lifecycle::new();
    let brain = FakeBrain::start("brain-a", &lifecycle).await;
    // Few in flight, so that each link gets further than to what the one before has left.
    let gateway = Gateway::start(ConnectionSettings { max_in_flight: 4, ..settings() }, &[&brain], lifecycle.clone());
    lifecycle.spawn({
        let stop = lifecycle.stopping().clone();
        async move { stop.run_until_cancelled_owned(cut_off(brain)).await.unwrap_or_default() }
    });
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        clients.push(gateway.connect(&format!("u{client}")).await);
    }
    for client in &mut clients {
        assert_eq!(client.json().await["type"], "welcome");
        for no in 0..REQUESTS {
            client.send(json!({"type": "session_end", "id": no.to_string(), "session_id": S})).await;
        }
    }
    for client in &mut clients {
        for no in 0..REQUESTS {
            assert_eq!(client.json().await, json!({"type": "ack", "reply_to": no.to_string()}));
        }
    }
    let metrics = &gateway.context.metrics;
    assert!(
        metrics.links.resent_requests.get() > 0 && metrics.links.losses.get() > 3,
        "{}",
        metrics.links.losses.get()
    );
    assert_eq!(metrics.in_flight.get(), 0);
    lifecycle.stopping().cancel();
}
