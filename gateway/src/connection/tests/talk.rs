//! Requests to the brain, replies and events to the client.

use chatbox_shared::auth::{JwksOptions, JwksSource};
use chatbox_shared::proto::{self, client_message, gateway_frame};
use prometheus_client::metrics::gauge::Gauge;
use serde_json::json;

use super::*;

#[tokio::test]
async fn the_welcome_is_first_and_the_brain_knows_who_came() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    assert_eq!(link.hello.gateway_id, "gateway-1");
    let mut client = gateway.connect("u1").await;
    let open = link.open().await;
    link.deliver(&[open.conn], 0, session()).await;
    let welcome = client.json().await;
    assert_eq!(welcome["type"], "welcome");
    assert_eq!(welcome["user"], json!({"id": "u1", "name": "Uma", "roles": ["tester"]}));
    assert_eq!(welcome["models"], json!([{"id": "demo", "name": "Demo"}]));
    assert_eq!(welcome["limits"]["max_content_chars"], 100);
    assert_eq!(welcome["connection_id"], open.connection_id.as_str());
    assert_eq!(client.json().await["type"], "session");
    let principal = open.principal.expect("a principal");
    assert_eq!((principal.user_id.as_str(), principal.name.as_str()), ("u1", "Uma"));
    assert_eq!(principal.roles, ["tester"]);
    assert_eq!((open.device.as_str(), open.remote_ip.as_str(), open.resume.len()), ("phone", "127.0.0.1", 0));
}

#[tokio::test]
async fn every_request_reaches_the_brain_in_order() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let (mut client, conn) = gateway.joined(&mut link).await;
    let message = "7d444840-9dc0-41d1-b245-5ffdce74fad2";
    let requests = [
        json!({"type": "session_open", "session_id": S, "create": true}),
        json!({"type": "session_close", "session_id": S}),
        json!({"type": "session_list"}),
        json!({"type": "session_rename", "session_id": S, "name": "a"}),
        json!({"type": "session_end", "session_id": S}),
        json!({"type": "session_delete", "session_id": S}),
        json!({"type": "history", "session_id": S, "before_seq": 9}),
        json!({"type": "user_message", "session_id": S, "client_msg_id": message, "content": "Hi"}),
        json!({"type": "stop_generation", "session_id": S}),
        json!({"type": "regenerate", "session_id": S}),
        json!({"type": "model_select", "session_id": S, "model_id": "demo"}),
        json!({"type": "typing", "session_id": S, "active": true}),
        json!({"type": "read", "session_id": S, "seq": 3}),
        json!({"type": "help_request", "session_id": S}),
        json!({"type": "admin_join", "session_id": S}),
        json!({"type": "admin_message", "session_id": S, "client_msg_id": message, "content": "Hi"}),
        json!({"type": "admin_leave", "session_id": S}),
        json!({"type": "admin_watch", "session_id": S}),
    ];
    for request in &requests {
        client.send(request.clone()).await;
    }
    for request in &requests {
        let arrived = link.request().await;
        assert_eq!(arrived.conn, conn);
        let message = arrived.message.and_then(|message| message.message).expect("a message");
        // SessionOpen → session_open
        let name: String = format!("{message:?}").chars().take_while(|c| *c != '(').collect();
        let kind = request["type"].as_str().expect("type").replace('_', "");
        assert_eq!(name.to_lowercase(), kind);
    }
}

#[tokio::test]
async fn replies_find_their_request_whatever_their_order() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let (mut client, _) = gateway.joined(&mut link).await;
    client.send(json!({"type": "session_end", "id": "first", "session_id": S})).await;
    client.send(json!({"type": "session_end", "session_id": S})).await;
    client.send(json!({"type": "session_list", "id": "third"})).await;
    let (first, second, third) = (link.request().await, link.request().await, link.request().await);
    link.reply(&third, Some(Say::Sessions(proto::Sessions::default()))).await;
    link.reply(&second, None).await;
    link.reply(&first, None).await;
    link.reply(&first, None).await;
    assert_eq!(client.json().await, json!({"type": "sessions", "reply_to": "third", "sessions": []}));
    assert_eq!(client.json().await, json!({"type": "ack", "reply_to": "first"}), "no ack where no id was given");
    client.send(json!({"type": "ping", "id": "p"})).await;
    assert_eq!(client.json().await, json!({"type": "pong", "reply_to": "p"}), "one reply each");
    assert_eq!(gateway.context.metrics.in_flight.get(), 0);
}

#[tokio::test]
async fn a_message_is_acknowledged_without_an_id_too() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let (mut client, _) = gateway.joined(&mut link).await;
    client.send(json!({"type": "user_message", "session_id": S, "client_msg_id": S, "content": "Hi"})).await;
    let request = link.request().await;
    let Some(client_message::Message::UserMessage(message)) = request.message.clone().and_then(|m| m.message) else {
        panic!("{request:?}")
    };
    assert_eq!((message.content.as_str(), message.client_msg_id.as_str()), ("Hi", S));
    let ack = proto::Ack { session_id: S.into(), client_msg_id: S.into(), seq: 1, ..Default::default() };
    link.reply(&request, Some(Say::Ack(ack))).await;
    let ack = client.json().await;
    assert_eq!(
        (ack["type"].as_str(), ack["client_msg_id"].as_str(), ack.get("reply_to")),
        (Some("ack"), Some(S), None)
    );
}

#[tokio::test]
async fn one_event_reaches_everyone_it_is_for_and_nobody_else() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let (mut first, one) = gateway.joined(&mut link).await;
    let (mut second, two) = gateway.joined(&mut link).await;
    link.deliver(&[one, two, 999], 0, delta(0, "a")).await;
    link.deliver(&[two], 0, delta(1, "b")).await;
    link.deliver(&[one, two], 0, delta(2, "c")).await;
    let mut seen = (String::new(), String::new());
    for _ in 0..2 {
        seen.0 += first.json().await["delta"].as_str().expect("delta");
    }
    for _ in 0..3 {
        seen.1 += second.json().await["delta"].as_str().expect("delta");
    }
    assert_eq!(seen, ("ac".to_owned(), "abc".to_owned()));
}

#[tokio::test]
async fn a_receipt_is_given_once_the_client_can_have_it() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let mut client = gateway.narrow("u1").await;
    let conn = link.open().await.conn;
    // More than the pipe holds: the receipt must wait for the client.
    link.deliver(&[conn], 0, delta(0, &"x".repeat(5000))).await;
    link.deliver(&[conn], 7, delta(1, "y")).await;
    link.deliver(&[conn], 8, delta(2, "z")).await;
    let early = tokio::time::timeout(Duration::from_millis(200), link.next()).await;
    assert!(early.is_err(), "{early:?}");
    for _ in 0..4 {
        client.json().await;
    }
    for expected in [7, 8] {
        match link.next().await {
            gateway_frame::Frame::Receipt(receipt) => assert_eq!((receipt.conn, receipt.receipt), (conn, expected)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_renewed_token_keeps_the_connection_and_tells_the_brain() {
    let (gateway, mut link) = Gateway::with_brain(settings()).await;
    let mut client =
        Client::new(gateway.tcp(Gateway::accepted("u1", now().plus(Duration::from_millis(600)))).await).await;
    assert_eq!(client.json().await["type"], "welcome");
    let conn = link.open().await.conn;
    assert_eq!(client.json().await["code"], "token_expiring");
    let renewed = token("u1", now().plus(Duration::from_secs(3600)));
    client.send(json!({"type": "token_refresh", "id": "t", "token": renewed})).await;
    assert_eq!(client.json().await, json!({"type": "ack", "reply_to": "t"}));
    match link.next().await {
        gateway_frame::Frame::Refresh(refresh) => {
            assert_eq!(refresh.conn, conn);
            assert_eq!(refresh.principal.expect("principal").roles, ["fresh"]);
        }
        other => panic!("{other:?}"),
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    client.send(json!({"type": "ping"})).await;
    assert_eq!(client.json().await["type"], "pong", "the old token's end is no longer the connection's");
}

#[tokio::test]
async fn a_renewed_token_that_cannot_be_checked_now_keeps_the_connection() {
    let (mut gateway, mut link) = Gateway::with_brain(settings()).await;
    // Nothing listens at port 9 of this machine.
    let jwks = JwksOptions {
        source: JwksSource::Url("http://127.0.0.1:9/jwks.json".parse().expect("url")),
        refresh: Duration::from_secs(300),
        max_stale: Duration::from_secs(3600),
        stale_seconds: Gauge::default(),
    };
    let options = Options { jwks: Some(jwks), ..Options::default() };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let verifier = Arc::new(TokenVerifier::new(options, clock, &gateway.lifecycle).expect("verifier"));
    gateway.context = Arc::new(ConnectionContext { verifier, ..(*gateway.context).clone() });
    let (mut client, _) = gateway.joined(&mut link).await;
    let token = format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"one"}"#));
    client.send(json!({"type": "token_refresh", "id": "t", "token": token})).await;
    let refused = client.json().await;
    assert_eq!((&refused["code"], &refused["reply_to"]), (&json!("unavailable"), &json!("t")), "{refused}");
    client.send(json!({"type": "ping"})).await;
    assert_eq!(client.json().await["type"], "pong", "the present token is still valid");
}
