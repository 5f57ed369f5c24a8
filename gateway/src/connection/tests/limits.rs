//! The limits of a client, and what a slow client costs.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::*;

#[tokio::test]
async fn bad_frames_are_answered_and_too_many_close() {
    let (gateway, mut link) = Gateway::with_brain(ConnectionSettings { max_invalid_frames: 2, ..settings() }).await;
    let (mut client, _) = gateway.joined(&mut link).await;
    for frame in [r#"{"type":"nonsense","id":"a"}"#, "[]"] {
        client.text(frame).await;
    }
    let error = client.json().await;
    assert_eq!(
        (&error["type"], &error["code"], &error["field"]),
        (&json!("error"), &json!("invalid_message"), &json!("type"))
    );
    assert_eq!(error["reply_to"], "a");
    assert_eq!(client.json().await["code"], "invalid_message");
    client.send(json!({"type": "ping"})).await;
    assert_eq!(client.json().await["type"], "pong", "the connection stays open");
    client.text("{}").await;
    assert_eq!(client.json().await["field"], "type");
    assert_eq!(client.closed().await, 1008);
}

#[tokio::test]
async fn content_is_bounded_by_what_the_brain_takes() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let (mut client, _) = gateway.joined(&mut link).await;
    client
        .send(
            json!({"type": "user_message", "id": "m", "session_id": S, "client_msg_id": S, "content": "x".repeat(101)}),
        )
        .await;
    let error = client.json().await;
    assert_eq!(
        (&error["code"], &error["field"], &error["reply_to"]),
        (&json!("too_large"), &json!("content"), &json!("m"))
    );
    assert_eq!(error["message"], "The content may have at most 100 characters.");
}

#[tokio::test]
async fn too_many_requests_are_refused_with_a_hint_and_a_flood_closes() {
    let limits = ConnectionSettings { requests_per_second: 1, request_burst: 2, max_invalid_frames: 1, ..settings() };
    let (gateway, mut link) = Gateway::with_brain(limits).await;
    let (mut client, _) = gateway.joined(&mut link).await;
    for _ in 0..14 {
        client.send(json!({"type": "ping", "id": "p"})).await;
    }
    for _ in 0..2 {
        assert_eq!(client.json().await["type"], "pong");
    }
    for _ in 0..11 {
        let error = client.json().await;
        assert_eq!((&error["code"], &error["reply_to"]), (&json!("rate_limited"), &json!("p")));
        let wait = error["retry_after_ms"].as_u64().expect("a hint");
        assert!((1..=1001).contains(&wait), "{wait}");
    }
    assert_eq!(client.closed().await, 1008);
}

#[tokio::test]
async fn the_socket_is_not_read_while_too_many_requests_wait() {
    let (gateway, mut link) = Gateway::with_brain(ConnectionSettings { max_in_flight: 2, ..settings() }).await;
    let (mut client, _) = gateway.joined(&mut link).await;
    for id in ["a", "b", "c"] {
        client.send(json!({"type": "session_end", "id": id, "session_id": S})).await;
    }
    let (first, _second) = (link.request().await, link.request().await);
    let early = tokio::time::timeout(Duration::from_millis(200), link.next()).await;
    assert!(early.is_err(), "{early:?}");
    link.reply(&first, None).await;
    link.request().await;
    assert_eq!(client.json().await["reply_to"], "a");
}

#[tokio::test]
async fn broken_frames_close_with_their_code() {
    let (gateway, _link) = Gateway::with_brain(ConnectionSettings { max_frame_bytes: 1000, ..settings() }).await;
    // All with a mask of zeros, so that the payload reads as it is.
    let large: Vec<u8> = [&[0x81, 0xfe, 0x0f, 0xa0, 0, 0, 0, 0][..], &[b'x'; 4000]].concat();
    let fragments: Vec<u8> =
        [&[0x01, 0xfe, 0x03, 0x20, 0, 0, 0, 0][..], &[b'x'; 800], &[0x80, 0xfe, 0x03, 0x20, 0, 0, 0, 0], &[b'x'; 800]]
            .concat();
    for (what, bytes, code) in [
        ("binary", &[0x82, 0x81, 0, 0, 0, 0, b'x'][..], 1003),
        ("too large", &large, 1009),
        ("too large in fragments", &fragments, 1009),
        ("not UTF-8", &[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28], 1007),
        ("UTF-8 broken across fragments", &[0x01, 0x81, 0, 0, 0, 0, 0xc3, 0x80, 0x81, 0, 0, 0, 0, 0x28], 1007),
        ("not masked", &[0x81, 0x01, b'x'], 1002),
        ("reserved bit", &[0xc1, 0x81, 0, 0, 0, 0, b'x'], 1002),
        ("reserved opcode", &[0x83, 0x81, 0, 0, 0, 0, b'x'], 1002),
        ("fragmented ping", &[0x09, 0x80, 0, 0, 0, 0], 1002),
        ("nothing to continue", &[0x80, 0x81, 0, 0, 0, 0, b'x'], 1002),
    ] {
        let mut socket = gateway.tcp(Gateway::accepted("u1", Timestamp(i64::MAX))).await;
        socket.write_all(bytes).await.expect("write");
        let mut client = Client::new(socket).await;
        assert_eq!(client.json().await["type"], "welcome", "{what}");
        assert_eq!(client.closed().await, code, "{what}");
        drop(client);
        gateway.empty().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_the_others_are_served() {
    let (gateway, mut link) =
        Gateway::with_brain(ConnectionSettings { outbound_queue_bytes: 4_000, ..settings() }).await;
    let mut slow = gateway.narrow("u1").await;
    let one = link.open().await.conn;
    let mut quick = gateway.connect("u2").await;
    let two = link.open().await.conn;
    quick.json().await;
    for seq in 1..=200 {
        link.deliver(&[one, two], 0, entry(seq, proto::EntryState::Final)).await;
        assert_eq!(quick.json().await["entry"]["seq"], seq);
    }
    eventually("the slow one is given up", || gateway.context.metrics.slow_closes.get() == 1).await;
    assert_eq!(slow.json().await["type"], "welcome");
    let mut last = 0;
    let code = loop {
        match slow.next().await {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).expect("JSON");
                let seq = frame["entry"]["seq"].as_u64().expect("seq");
                assert_eq!(seq, last + 1, "what it gets is in order");
                last = seq;
            }
            Message::Close(frame) => break u16::from(frame.expect("a code").code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 4008);
    assert!(last < 200, "some were dropped");
    link.deliver(&[two], 0, entry(201, proto::EntryState::Final)).await;
    assert_eq!(quick.json().await["entry"]["seq"], 201);
}

#[tokio::test]
async fn under_pressure_deltas_are_merged_without_loss() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let mut client = gateway.narrow("u1").await;
    let conn = link.open().await.conn;
    let mut sent = String::new();
    for index in 0..2000_u64 {
        let text = format!("{index} é,");
        sent += &text;
        link.deliver(&[conn], 0, delta(index, &text)).await;
    }
    eventually("deltas are merged", || gateway.context.metrics.merged_deltas.get() > 1000).await;
    assert_eq!(client.json().await["type"], "welcome");
    let (mut received, mut next, mut frames) = (String::new(), 0, 0);
    while next < 2000 {
        let frame = client.json().await;
        assert_eq!(frame["index"], next);
        next += frame["count"].as_u64().unwrap_or(1);
        received += frame["delta"].as_str().expect("delta");
        frames += 1;
    }
    assert_eq!(received, sent);
    assert!(frames < 1000, "{frames} frames");
}

#[tokio::test]
async fn an_idle_connection_is_small() {
    let (gateway, _link) = Gateway::with_brain(settings()).await;
    let (_near, far) = tokio::io::duplex(1024);
    let socket = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
    let whole = serve(Arc::clone(&gateway.context), Gateway::accepted("u1", Timestamp(0)), socket);
    let size = size_of_val(&whole);
    println!(
        "serve {size}, of it websocket {}, connection {}; beside it send queue {}",
        size_of::<WebSocketStream<TcpStream>>(),
        size_of::<crate::connection::state::Connection>(),
        size_of::<crate::send_queue::SendQueue>()
    );
    assert!(size <= 1536, "the future of a connection takes {size} bytes");
}
