//! The terminal client against a gateway that the test plays.

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;

/// A gateway that sends the frames of a test.
struct Server(TcpListener);

struct Peer(WebSocketStream<TcpStream>);

impl Server {
    async fn new() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/chat/ws", listener.local_addr().unwrap());
        (Self(listener), url)
    }

    /// Accepts a connection and opens its session. `summary`: further fields of the session reply.
    async fn open(&self) -> (Peer, Value) {
        let (socket, _) = self.0.accept().await.unwrap();
        #[expect(clippy::result_large_err, reason = "the type is tungstenite's")]
        let check = |request: &Request, response: Response| {
            assert_eq!(request.headers()["authorization"], "Bearer token");
            Ok::<_, ErrorResponse>(response)
        };
        let mut peer = Peer(tokio_tungstenite::accept_hdr_async(socket, check).await.unwrap());
        peer.say(json!({ "type": "welcome", "connection_id": "c", "user": { "id": "me", "name": "Me" }, "heartbeat_interval_ms": 25000 })).await;
        let open = peer.hear().await;
        assert_eq!(open["type"], "session_open");
        peer.say(json!({ "type": "session", "reply_to": open["id"], "session": { "id": open["session_id"], "epoch": "e", "state": "active" } })).await;
        (peer, open)
    }
}

impl Peer {
    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(_)) => {}
                end => panic!("the client is gone: {end:?}"),
            }
        }
    }

    async fn entry(&mut self, session: &Value, entry: Value) {
        self.say(json!({ "type": "entry", "session_id": session, "entry": entry })).await;
    }

    async fn answer(&mut self, message: &Value, seq: u64, text: &str) {
        let session = &message["session_id"];
        let id = &message["client_msg_id"];
        self.say(
            json!({ "type": "ack", "reply_to": message["id"], "session_id": session, "client_msg_id": id, "seq": seq }),
        )
        .await;
        let said = json!({ "seq": seq, "rev": 1, "id": "m", "state": "final", "sender": { "role": "user", "id": "me" }, "content": message["content"] });
        self.entry(session, said).await;
        let mut answer = json!({
            "seq": seq + 1, "rev": 1, "id": "a", "state": "streaming", "sender": { "role": "ai" }, "content": "",
            "reply_to_seq": seq, "attempt": 1, "next_index": 0, "model_id": "demo",
        });
        self.entry(session, answer.clone()).await;
        self.say(json!({ "type": "ai_delta", "session_id": session, "seq": seq + 1, "attempt": 1, "index": 0, "delta": text })).await;
        answer["rev"] = 2.into();
        answer["state"] = "final".into();
        answer["finish_reason"] = "stop".into();
        answer["content"] = text.into();
        self.entry(session, answer).await;
    }
}

fn options(url: String) -> Options {
    Options {
        url,
        token: "token".to_owned(),
        session: Uuid::new_v4(),
        terminal: false,
        patience: Duration::from_secs(20),
    }
}

/// The lines of a script, all ready from the start.
async fn script(lines: &[&str]) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    for line in lines {
        sender.send((*line).to_owned()).await.unwrap();
    }
    receiver
}

#[tokio::test]
async fn a_script_is_answered_line_by_line_also_over_a_lost_connection() {
    let (server, url) = Server::new().await;
    let lines = script(&["one", "two"]).await;
    let mut out = Vec::new();
    let client = run(options(url), lines, &mut out);
    let server = async {
        let (mut peer, open) = server.open().await;
        peer.say(json!({ "type": "session_ready", "session_id": open["session_id"], "seq": 0 })).await;
        let first = peer.hear().await;
        assert_eq!((&first["type"], &first["content"]), (&"user_message".into(), &"one".into()));
        // Lost before the acknowledgement: the client does not know whether the message was stored.
        drop(peer);

        let (mut peer, again) = server.open().await;
        assert_eq!((&again["session_id"], &again["epoch"]), (&open["session_id"], &"e".into()));
        assert_eq!(peer.hear().await, first, "the same message under the same id");
        peer.say(json!({ "type": "session_ready", "session_id": open["session_id"], "seq": 0 })).await;
        peer.answer(&first, 1, "Eins").await;
        let second = peer.hear().await;
        assert_eq!(second["content"], "two");
        peer.answer(&second, 3, "Zwei").await;
        assert!(matches!(peer.0.next().await, Some(Ok(Message::Close(_)))));
    };
    let (result, ()) = tokio::join!(client, server);
    assert!(result.unwrap());
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.ends_with("[1] you: one\n[2] ai: Eins\n    (stop; demo)\n[3] you: two\n[4] ai: Zwei\n    (stop; demo)\n"),
        "{text}"
    );
    assert!(text.contains("connection c, session ") && text.contains("reconnecting"), "{text}");
}

#[tokio::test]
async fn a_refused_connection_is_not_tried_again() {
    let (server, url) = Server::new().await;
    let client = run(options(url), script(&["one"]).await, std::io::sink());
    let server = async {
        let (mut peer, _) = server.open().await;
        let frame = CloseFrame { code: 4002.into(), reason: "".into() };
        peer.0.close(Some(frame)).await.unwrap();
        while peer.0.next().await.is_some() {}
    };
    let (result, ()) = tokio::join!(client, server);
    assert!(result.unwrap_err().to_string().contains("replaced"));
}

#[tokio::test]
async fn a_script_does_not_wait_for_ever() {
    let (_server, url) = Server::new().await;
    let options = Options { patience: Duration::from_millis(100), ..options(url) };
    // The server accepts connections and sends nothing, so only the time limit of the script ends the run.
    let error =
        tokio::time::timeout(Duration::from_secs(30), run(options, script(&["one"]).await, std::io::sink())).await;
    assert!(error.unwrap().unwrap_err().to_string().contains("has sent nothing"));
}
