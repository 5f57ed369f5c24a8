//! Pictures in the requests to each provider, over real sockets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chatbox_brain::llm::{ErrorClass, Image, Prompt, PromptTurn};
use chatbox_tests::provider::FakeProvider;
use serde_json::{Value, json};

use super::support::raw::{Canned, Raw};
use super::support::{KINDS, ask, ask_with, chats, model, prompt};

/// Bytes that would break a multipart form if it were built as text.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n--\r\n\xff";

fn image(media_type: &str) -> Image {
    Image { media_type: media_type.into(), data: Bytes::from_static(PNG) }
}

/// A prompt with one picture in an older message and two in the last message.
fn shown(question: &str) -> Prompt {
    let with = |turn: PromptTurn, images: Vec<Image>| PromptTurn { images, ..turn };
    let turns = vec![
        with(PromptTurn::user("old"), vec![image("image/gif")]),
        PromptTurn::assistant("A cat."),
        with(PromptTurn::user(question), vec![image("image/png"), image("image/webp")]),
    ];
    Prompt { turns, ..prompt() }
}

#[tokio::test]
async fn openai_takes_data_urls_beside_the_text() {
    let fake = FakeProvider::start().await.unwrap();
    let model = model("openai", &fake.url(), json!({}));
    let url = |media_type: &str| json!({"url": format!("data:{media_type};base64,{}", STANDARD.encode(PNG))});
    let picture = |media_type: &str| json!({"type": "image_url", "image_url": url(media_type)});
    for (question, first) in [("What is this?", Some(json!({"type": "text", "text": "What is this?"}))), (" ", None)] {
        ask_with(&model, &shown(question)).await.1.unwrap();
        let messages = fake.journal().pop().unwrap().body["messages"].clone();
        let asked: Vec<Value> = first.into_iter().chain([picture("image/png"), picture("image/webp")]).collect();
        let expected = json!([{"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "old"}, picture("image/gif")]},
            {"role": "assistant", "content": "A cat."},
            {"role": "user", "content": asked}]);
        assert_eq!(messages, expected, "{question:?}");
    }
}

#[tokio::test]
async fn anthropic_takes_base64_before_the_text() {
    let fake = FakeProvider::start().await.unwrap();
    let model = model("anthropic", &fake.url(), json!({}));
    let picture = |media_type: &str| {
        let source = json!({"type": "base64", "media_type": media_type, "data": STANDARD.encode(PNG)});
        json!({"type": "image", "source": source})
    };
    for (question, last) in [("What is this?", Some(json!({"type": "text", "text": "What is this?"}))), ("", None)] {
        ask_with(&model, &shown(question)).await.1.unwrap();
        let messages = fake.journal().pop().unwrap().body["messages"].clone();
        let asked: Vec<Value> = [picture("image/png"), picture("image/webp")].into_iter().chain(last).collect();
        let expected = json!([{"role": "user", "content": [picture("image/gif"), {"type": "text", "text": "old"}]},
            {"role": "assistant", "content": "A cat."},
            {"role": "user", "content": asked}]);
        assert_eq!(messages, expected, "{question:?}");
    }
}

fn uploaded(id: &str) -> Canned {
    ("201 Created", "application/json", json!({"id": id, "name": "x", "size": 1, "extension": "png"}).to_string())
}

fn answered() -> Canned {
    let events = [
        json!({"event": "message", "task_id": "t", "conversation_id": "c", "answer": "hi"}),
        json!({"event": "message_end", "task_id": "t", "conversation_id": "c", "metadata": {}}),
    ];
    ("200 OK", "text/event-stream", events.iter().map(|event| format!("data: {event}\n\n")).collect())
}

#[tokio::test]
async fn dify_takes_files_that_were_uploaded_before() {
    for (question, query) in [("What is this?", "What is this?"), ("", "[image]")] {
        let second = ("200 OK", "application/json", json!({"id": "f-2"}).to_string());
        let server = Raw::start([uploaded("f-1"), second, answered()]).await;
        let (read, end) = ask_with(&model("dify", &server.url, json!({})), &shown(question)).await;
        assert!(end.is_ok() && read.text == "hi" && read.replaced.is_empty(), "{end:?}");
        let received = server.received();
        for (upload, (name, media_type)) in
            received.iter().zip([("image-1.png", "image/png"), ("image-2.webp", "image/webp")])
        {
            assert!(upload.head.starts_with("post /v1/files/upload http/1.1\r\n"), "{}", upload.head);
            assert!(
                upload.head.contains("authorization: bearer ") && upload.head.contains("x-client-request-id: call-7")
            );
            let boundary = upload.head.split_once("content-type: multipart/form-data; boundary=").unwrap().1;
            let boundary = boundary.lines().next().unwrap();
            let head = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nu-hash\r\n--{boundary}\r\n\
                 Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {media_type}\r\n\r\n"
            );
            let end = format!("\r\n--{boundary}--\r\n");
            assert_eq!(upload.body, [head.as_bytes(), PNG, end.as_bytes()].concat(), "{name}");
        }
        assert_eq!(received.len(), 3);
        assert!(received[2].head.starts_with("post /v1/chat-messages http/1.1\r\n"));
        let body: Value = serde_json::from_slice(&received[2].body).unwrap();
        let file = |id: &str| json!({"type": "image", "transfer_method": "local_file", "upload_file_id": id});
        assert_eq!((&body["query"], &body["files"]), (&json!(query), &json!([file("f-1"), file("f-2")])));
    }
}

#[tokio::test]
async fn an_upload_that_fails_is_a_refusal_like_any_other() {
    let fault = |code: &str| json!({"code": code, "message": "x", "status": 400}).to_string();
    for (status, content_type, body, class, again) in [
        ("413 Too Large", "application/json", fault("file_too_large"), ErrorClass::Rejected, false),
        ("415 Unsupported", "application/json", fault("unsupported_file_type"), ErrorClass::Rejected, false),
        ("400 Bad Request", "application/json", fault("no_file_uploaded"), ErrorClass::Rejected, false),
        ("401 Unauthorized", "application/json", fault("unauthorized"), ErrorClass::Auth, false),
        ("404 Not Found", "application/json", fault("not_found"), ErrorClass::NotFound, false),
        ("413 Too Large", "text/html", "<html>".to_owned(), ErrorClass::Rejected, false),
        ("502 Bad Gateway", "text/html", "<html>".to_owned(), ErrorClass::Server, true),
        ("200 OK", "text/html", "<html>log in</html>".to_owned(), ErrorClass::Protocol, false),
        ("200 OK", "text/plain", "ok".to_owned(), ErrorClass::Protocol, false),
        ("201 Created", "application/json", "{}".to_owned(), ErrorClass::Protocol, false),
    ] {
        let server = Raw::start([(status, content_type, body.clone())]).await;
        let model = model("dify", &server.url, json!({"max_retries": 0}));
        let going_on = Prompt { conversation: Some("c-1".into()), ..shown("x") };
        let error = ask_with(&model, &going_on).await.1.unwrap_err();
        assert_eq!((error.class, error.retryable(), error.remedy()), (class, again, None), "{status} {body}");
        assert_eq!(server.received().len(), 1, "nothing is asked without its pictures");
    }
}

#[tokio::test]
async fn without_pictures_nothing_changes_and_names_that_cannot_be_sent_are_left_out() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({}));
        ask(&model).await.1.unwrap();
        let body = fake.journal().pop().unwrap().body;
        let contents = body["messages"].as_array().into_iter().flatten().map(|message| &message["content"]);
        assert!(contents.clone().all(Value::is_string) && body.get("files").is_none(), "{kind}: {body}");
        for unsendable in ["", "a\nb", "a b", "\u{fc}", &"x".repeat(513)] {
            ask_with(&model, &Prompt { request_id: unsendable.into(), ..prompt() }).await.1.unwrap();
            let call = fake.journal().pop().unwrap();
            assert!(!call.headers.contains_key("x-client-request-id"), "{kind}: {unsendable:?}");
        }
    }
    assert_eq!(chats(&fake.journal()).len(), 18, "one request for each answer");
}
