//! Invalid frames: each gets an error that names the field, and the connection stays open until there are too many.

use anyhow::{Result, ensure};
use chatbox_tests::harness::Stack;
use chatbox_tests::harness::connection::{new_session, user_message};
use serde_json::{Value, json};
use tungstenite::Message;
use uuid::Uuid;

#[tokio::test]
async fn a_wrong_request_is_refused_naming_its_field_and_changes_nothing() -> Result<()> {
    let stack = Stack::builder().gateway("limits.max_invalid_frames", 1000)?.start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    let message = |change: &dyn Fn(&mut Value)| {
        let mut request = user_message(&session, &Uuid::new_v4().to_string(), "hello");
        change(&mut request);
        request
    };
    let open = |field: &str, value: Value| {
        let mut request = json!({ "type": "session_open", "session_id": new_session(), "create": true });
        request[field] = value;
        request
    };
    let table: Vec<(&str, Value)> = vec![
        ("type", json!({})),
        ("type", json!({ "type": 7 })),
        ("type", json!({ "type": "no_such_type" })),
        ("type", json!({ "type": "ack" })),
        ("session_id", json!({ "type": "session_open" })),
        ("session_id", open("session_id", json!(7))),
        ("session_id", open("session_id", json!("not-a-uuid"))),
        ("session_id", open("session_id", json!({ "$ne": null }))),
        ("session_id", open("session_id", json!(Uuid::new_v4().simple().to_string()))),
        ("create", open("create", json!("yes"))),
        ("after_seq", open("after_seq", json!(-1))),
        ("after_seq", open("after_seq", json!("1"))),
        ("after_seq", open("after_seq", json!(1.5))),
        ("epoch", open("epoch", json!(1))),
        ("model_id", open("model_id", json!(["demo"]))),
        ("name", open("name", json!({}))),
        ("limit", json!({ "type": "session_list", "limit": 101 })),
        ("limit", json!({ "type": "session_list", "limit": 0 })),
        ("limit", json!({ "type": "session_list", "limit": "10" })),
        ("state", json!({ "type": "session_list", "state": "gone" })),
        ("cursor", json!({ "type": "session_list", "cursor": 5 })),
        ("name", json!({ "type": "session_rename", "session_id": session })),
        ("before_seq", json!({ "type": "history", "session_id": session })),
        ("before_seq", json!({ "type": "history", "session_id": session, "before_seq": "2" })),
        ("limit", json!({ "type": "history", "session_id": session, "before_seq": 2, "limit": 1_000_000_000 })),
        (
            "client_msg_id",
            message(&|it| {
                it.as_object_mut().map(|it| it.remove("client_msg_id"));
            }),
        ),
        ("client_msg_id", message(&|it| it["client_msg_id"] = json!("1"))),
        ("client_msg_id", message(&|it| it["client_msg_id"] = json!({ "$gt": "" }))),
        (
            "content",
            message(&|it| {
                it.as_object_mut().map(|it| it.remove("content"));
            }),
        ),
        ("content", message(&|it| it["content"] = json!(""))),
        ("content", message(&|it| it["content"] = json!(["a"]))),
        ("content", message(&|it| it["content"] = json!({ "$ne": null }))),
        ("content", message(&|it| it["content"] = Value::Null)),
        ("attachments", message(&|it| it["attachments"] = json!("file"))),
        ("sender", message(&|it| it["sender"] = json!({ "role": "admin" }))),
        ("role", message(&|it| it["role"] = json!("ai"))),
        ("seq", message(&|it| it["seq"] = json!(9))),
        ("user_id", message(&|it| it["user_id"] = json!("ben"))),
        ("active", json!({ "type": "typing", "session_id": session })),
        ("active", json!({ "type": "typing", "session_id": session, "active": 1 })),
        ("seq", json!({ "type": "read", "session_id": session })),
        ("seq", json!({ "type": "read", "session_id": session, "seq": -1 })),
        ("model_id", json!({ "type": "model_select", "session_id": session })),
        ("token", json!({ "type": "token_refresh" })),
        ("token", json!({ "type": "token_refresh", "token": 1 })),
    ];
    for (field, request) in table {
        let what = request.to_string();
        let reply = ana.ask_invalid(request).await?;
        ensure!(
            reply.is("error") && reply.text("/code") == "invalid_message" && reply.text("/field") == field,
            "{what}: expected invalid_message at {field}, got {}",
            reply.raw
        );
        ensure!(reply.at("/retryable") == false && !reply.text("/message").is_empty(), "{}", reply.raw);
        ensure!(reply.text("/error_id").len() == 32, "{}", reply.raw);
    }
    // The page cannot say which cursors exist.
    let cursor = ana.ask_refused(json!({ "type": "session_list", "cursor": "nonsense" }), "invalid_message").await?;
    ensure!(cursor.text("/field") == "cursor", "{}", cursor.raw);
    let long = ana.ask(message(&|it| it["content"] = json!("ä".repeat(32_001)))).await?;
    ensure!(long.is("error") && long.text("/code") == "too_large", "{}", long.raw);
    ensure!(long.text("/message").contains("32000"), "the limit is not named: {}", long.raw);
    let name = ana.ask_refused(open("name", json!("x".repeat(201))), "too_large").await?;
    ensure!(name.text("/field") == "name" && name.text("/message").contains("200"), "{}", name.raw);
    let log = ana.open_with(json!({ "type": "session_open", "session_id": session })).await?;
    ensure!(log.number("/session/seq") == Some(0), "something was stored: {}", log.raw);
    Ok(())
}

#[tokio::test]
async fn text_that_is_no_request_is_refused_without_closing() -> Result<()> {
    let stack = Stack::builder().gateway("limits.max_invalid_frames", 1000)?.start().await?;
    let mut ana = stack.user("ana")?.connect().await?;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let nested = format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    for raw in [
        "",
        " ",
        "hello",
        "{",
        "{}{}",
        r#"{"type":"ping"}{"type":"ping"}"#,
        r#"{"type":"ping"} {"type":"ping"}"#,
        "[]",
        r#"["ping"]"#,
        "null",
        "7",
        r#""ping""#,
        r#"{"type":"ping","type":"ping"}"#,
        r#"{"type":"ping","id":7}"#,
        r#"{'type':'ping'}"#,
        r#"{"type":"ping",}"#,
        r#"{"type":"ping","x":NaN}"#,
        "{\"type\":\"ping\",\"x\":\"\u{1}\"}",
        &deep,
        &nested,
    ] {
        ana.send_raw(raw).await?;
        let reply = ana.next_frame().await?;
        ensure!(reply.is("error") && reply.text("/code") == "invalid_message", "{raw:.60}: {}", reply.raw);
    }
    let long_id = json!({ "type": "ping", "id": "x".repeat(65) });
    ana.send_raw(long_id.to_string()).await?;
    let reply = ana.next_frame().await?;
    ensure!(reply.text("/code") == "invalid_message" && reply.text("/field") == "id", "{}", reply.raw);
    ana.settle().await?;
    Ok(())
}

#[tokio::test]
async fn without_an_id_a_request_gets_no_bare_reply_but_a_message_is_always_acknowledged() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.send(&json!({ "type": "session_rename", "session_id": session, "name": "Trip" })).await?;
    ana.send(&json!({ "type": "typing", "session_id": session, "active": true })).await?;
    let id = Uuid::new_v4().to_string();
    ana.send(&user_message(&session, &id, "hello")).await?;
    let ack = ana.until("the ack", |frame| frame.is("ack")).await?;
    ensure!(ack.text("/client_msg_id") == id && ack.at("/reply_to").is_null(), "{}", ack.raw);
    ensure!(ack.number("/seq") == Some(1) && ack.at("/duplicate") == false, "{}", ack.raw);
    ana.settle().await?;
    let acks = ana.frames.iter().filter(|frame| frame.is("ack")).count();
    ensure!(acks == 1, "{acks} acks for one message");
    Ok(())
}

#[tokio::test]
async fn binary_frames_oversized_frames_and_floods_close_with_their_codes() -> Result<()> {
    let stack = Stack::builder().gateway("limits.max_frame_bytes", 4096)?.start().await?;

    let mut binary = stack.user("ana")?.connect().await?;
    binary.send_message(Message::binary(vec![1, 2, 3])).await?;
    ensure!(binary.closed().await?.code == 1003, "{:?}", binary.closed().await?);

    let mut large = stack.user("ana")?.connect().await?;
    large.send_raw("x".repeat(4097)).await?;
    ensure!(large.closed().await?.code == 1009, "{:?}", large.closed().await?);

    let mut fits = stack.user("ana")?.connect().await?;
    fits.send_raw(format!("{:<4096}", r#"{"type":"ping","id":"a"}"#)).await?;
    ensure!(fits.next_frame().await?.is("pong"), "a frame of exactly the limit");

    let mut flood = stack.user("ana")?.connect().await?;
    for _ in 0..21 {
        flood.send_raw("nonsense").await?;
    }
    ensure!(flood.closed().await?.code == 1008, "{:?}", flood.closed().await?);
    let errors = flood.frames.iter().filter(|frame| frame.is("error")).count();
    ensure!(errors == 21, "{errors} errors before the close");
    Ok(())
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_try_again() -> Result<()> {
    let stack =
        Stack::builder().gateway("limits.request_burst", 5)?.gateway("limits.requests_per_second", 1)?.start().await?;
    let mut ana = stack.user("ana")?.connect().await?;
    for index in 0..8 {
        ana.send(&json!({ "type": "ping", "id": index.to_string() })).await?;
    }
    let mut refused = 0;
    for _ in 0..8 {
        let reply = ana.next_frame().await?;
        if reply.is("error") {
            ensure!(reply.text("/code") == "rate_limited" && reply.at("/retryable") == true, "{}", reply.raw);
            ensure!(reply.number("/retry_after_ms").is_some_and(|ms| ms > 0), "{}", reply.raw);
            refused += 1;
        }
    }
    ensure!(refused == 3, "{refused} of 8 requests were refused");
    Ok(())
}

#[tokio::test]
async fn control_frames_and_text_that_break_websocket_close_with_their_codes() -> Result<()> {
    use chatbox_tests::harness::raw_http::read_response;
    use chatbox_tests::harness::waits::within;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let stack = Stack::builder().start().await?;
    let masked = |first: u8, payload: &[u8]| {
        let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap_or(0), 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    };
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("a reserved bit", masked(0xC1, b"{}"), 1002),
        ("no mask", vec![0x81, 2, b'{', b'}'], 1002),
        ("a reserved opcode", masked(0x83, b"{}"), 1002),
        ("a fragmented ping", masked(0x09, b""), 1002),
        ("a continuation of nothing", masked(0x80, b"x"), 1002),
        ("text that is not UTF-8", masked(0x81, &[0xff, 0xfe]), 1007),
        ("a surrogate in UTF-8", masked(0x81, &[0xed, 0xa0, 0x80]), 1007),
    ];
    for (what, bytes, code) in cases {
        let mut socket = tokio::net::TcpStream::connect(stack.gateway(0)).await?;
        socket.write_all(&stack.user("ana")?.bytes()).await?;
        let mut received = read_response(&mut socket).await?.body;
        socket.write_all(&bytes).await?;
        // The server may reset the connection after its close frame: an error ends the stream too.
        within(what, async { while matches!(socket.read_buf(&mut received).await, Ok(more) if more > 0) {} }).await?;
        let close = received.windows(4).rev().find(|it| it[0] == 0x88 && it[1] >= 2);
        let sent = close.map(|it| u16::from_be_bytes([it[2], it[3]]));
        ensure!(sent == Some(code), "{what}: closed with {sent:?}");
    }
    Ok(())
}
