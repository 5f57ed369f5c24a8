//! The normal case, byte for byte, for each store and each kind of provider: the requests to the provider and the frames to
//! the client.

use anyhow::{Result, ensure};
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::mask::Mask;
use chatbox_tests::harness::model::{API_KEY, Model};
use chatbox_tests::harness::{Dialect, Frame, Stack, StoreAt};
use chatbox_tests::provider::{Call, FakeProvider, Script};
use serde_json::{Value, json};

const PROMPT: &str = "You are a bird expert.";

/// Two turns. Checks the frames of the client against [`FRAMES`] and returns the requests to the provider.
async fn two_turns(store: StoreAt, dialect: Dialect) -> Result<Vec<Call>> {
    let provider = FakeProvider::start().await?;
    let mut model = Model::at("bird", dialect, &provider.url());
    if dialect != Dialect::Dify {
        model = model.with("system_prompt", PROMPT).with("max_output_tokens", 256);
    }
    let mut stack = Stack::builder().store(store).model(model).start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    provider.script(Script::answer(["In ", "the air 🦅."]));
    let id = new_session();
    ana.say_as(&session, &id, "Where do swifts sleep?").await?;
    ana.answer(&session, 1).await?;
    // The usage of a call is added to the session a moment after the answer has ended.
    let summed_up = |frame: &Frame| frame.is("session") && frame.number("/session/tokens/input") == Some(10);
    ana.seen("the sum of what was used", summed_up).await?;
    ana.settle().await?;
    check_frames(&ana, &session, &id)?;

    // The answer is the same after a restart, and the conversation goes on from it.
    stack.restart_brain().await?;
    stack.ready().await?;
    let mut back = stack.user("ana")?.connect().await?;
    back.open(&session).await?;
    back.log(&session)?.assert_same(ana.log(&session)?)?;
    provider.script(Script::answer(["Insects."]));
    let second = back.converse(&session, "And eat?").await?;
    ensure!(second["content"] == "Insects." && second["usage"]["estimated"] == false, "{second}");
    back.log(&session)?.assert_gapless()?;
    let calls: Vec<Call> = provider.journal().into_iter().filter(Call::is_chat).collect();
    ensure!(calls.len() == 2, "{} calls", calls.len());
    for frame in ana.frames.iter().chain(&back.frames) {
        ensure!(!frame.raw.contains(PROMPT) && !frame.raw.contains(API_KEY), "leaked: {}", frame.raw);
    }
    Ok(calls)
}

/// Every frame of the first turn except the summaries, in order.
const FRAMES: &str = r#"
{"type":"welcome","protocol":"chatbox.v1","connection_id":"<connection>","user":{"id":"ana","roles":[]},"server_time":"<time>","heartbeat_interval_ms":25000,"models":[{"id":"bird","name":"BIRD"}],"default_model_id":"bird","limits":{"max_frame_bytes":65536,"max_content_chars":32000,"replay_entries":500,"requests_per_second":50,"request_burst":100,"max_page":100}}
{"type":"session","reply_to":"r1","session":{"id":"<session>","epoch":"<epoch>","name":"","state":"active","model_id":"bird","seq":0,"created_at":"<time>","last_activity_at":"<time>","message_count":0,"unread":0,"admin_assisted":false,"help_requested":false,"tokens":{"input":0,"output":0}}}
{"type":"session_ready","session_id":"<session>","seq":0}
{"type":"entry","session_id":"<session>","entry":{"seq":1,"rev":1,"id":"<question>","kind":"message","state":"final","sender":{"id":"ana","role":"user"},"content":"Where do swifts sleep?","created_at":"<time>","client_msg_id":"<client_msg_id>"}}
{"type":"ack","reply_to":"r2","session_id":"<session>","client_msg_id":"<client_msg_id>","message_id":"<question>","seq":1,"created_at":"<time>","duplicate":false}
{"type":"entry","session_id":"<session>","entry":{"seq":2,"rev":1,"id":"<answer>","kind":"message","state":"streaming","sender":{"role":"ai"},"content":"","created_at":"<time>","reply_to_seq":1,"model_id":"bird","attempt":1,"next_index":0}}
{"type":"ai_delta","session_id":"<session>","seq":2,"attempt":1,"index":0,"delta":"In "}
{"type":"ai_delta","session_id":"<session>","seq":2,"attempt":1,"index":1,"delta":"the air 🦅."}
{"type":"entry","session_id":"<session>","entry":{"seq":2,"rev":2,"id":"<answer>","kind":"message","state":"final","sender":{"role":"ai"},"content":"In the air 🦅.","created_at":"<time>","reply_to_seq":1,"model_id":"bird","attempt":1,"finish_reason":"stop","usage":{"input_tokens":10,"output_tokens":2,"estimated":false},"latency_ms":{"first_token":<ms>,"total":<ms>}}}
{"type":"pong","reply_to":"r3"}
"#;

/// The last summary. It may come between any two of the other frames.
const SUMMARY: &str = r#"{"type":"session","session":{"id":"<session>","epoch":"<epoch>","name":"Where do swifts sleep?","state":"active","model_id":"bird","seq":2,"created_at":"<time>","last_activity_at":"<time>","message_count":2,"unread":1,"admin_assisted":false,"help_requested":false,"tokens":{"input":10,"output":2}}}"#;

fn check_frames(ana: &Connection, session: &str, client_msg_id: &str) -> Result<()> {
    let log = ana.log(session)?;
    let mut mask = Mask::default();
    mask.name(ana.id(), "connection");
    mask.name(session, "session");
    mask.name(client_msg_id, "client_msg_id");
    mask.name(log.summary["epoch"].as_str().unwrap_or_default(), "epoch");
    for (seq, name) in [(1, "question"), (2, "answer")] {
        let id = log.entry(seq).and_then(|seen| seen.entry["id"].as_str());
        mask.name(id.unwrap_or_default(), name);
    }
    let (summaries, others): (Vec<_>, Vec<_>) =
        ana.frames.iter().partition(|frame| frame.is("session") && frame.at("/reply_to").is_null());
    let others: Vec<String> = others.iter().map(|frame| mask.apply(&frame.raw)).collect();
    let expected: Vec<&str> = FRAMES.trim().lines().collect();
    for (frame, expected) in others.iter().zip(&expected) {
        ensure!(frame == expected, "the client was sent\n{frame}\ninstead of\n{expected}");
    }
    ensure!(others.len() == expected.len(), "{} frames instead of {}: {others:#?}", others.len(), expected.len());
    let summary = summaries.last().map(|frame| mask.apply(&frame.raw)).unwrap_or_default();
    ensure!(summary == SUMMARY, "the last summary is\n{summary}\ninstead of\n{SUMMARY}");
    Ok(())
}

fn check_call(call: &Call, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<()> {
    ensure!(call.method == "POST" && call.path == path && call.query.is_empty(), "{} {}", call.method, call.path);
    for (name, value) in headers {
        let found = call.headers.get(*name).map(String::as_str);
        ensure!(found == Some(*value), "{name}: {found:?} instead of {value}");
    }
    ensure!(!call.headers.contains_key("accept-encoding"), "a compressed stream would wait in a buffer");
    ensure!(call.body == *body, "the provider was asked\n{}\ninstead of\n{body}", call.body);
    Ok(())
}

fn check_openai(calls: &[Call]) -> Result<()> {
    let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
    let mut messages = vec![turn("system", PROMPT), turn("user", "Where do swifts sleep?")];
    let key = format!("Bearer {API_KEY}");
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    for call in calls {
        let body = json!({
            "model": "wire-name-1", "stream": true, "stream_options": { "include_usage": true },
            "messages": messages, "max_completion_tokens": 256, "user": call.body["user"],
        });
        check_call(call, "/v1/chat/completions", &headers, &body)?;
        messages.extend([turn("assistant", "In the air 🦅."), turn("user", "And eat?")]);
    }
    check_user(calls, |body| &body["user"])
}

fn check_anthropic(calls: &[Call]) -> Result<()> {
    let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
    let mut messages = vec![turn("user", "Where do swifts sleep?")];
    let headers = [("x-api-key", API_KEY), ("anthropic-version", "2026-10-21"), ("content-type", "application/json")];
    for call in calls {
        let body = json!({
            "model": "wire-name-1", "stream": true, "system": PROMPT, "messages": messages, "max_tokens": 256,
            "metadata": { "user_id": call.body["metadata"]["user_id"] },
        });
        check_call(call, "/v1/messages", &headers, &body)?;
        messages.extend([turn("assistant", "In the air 🦅."), turn("user", "And eat?")]);
    }
    check_user(calls, |body| &body["metadata"]["user_id"])
}

/// Dify keeps the conversation: the second request names it.
fn check_dify(calls: &[Call]) -> Result<()> {
    let key = format!("Bearer {API_KEY}");
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let conversation = &calls[1].body["conversation_id"];
    ensure!(conversation.as_str().is_some_and(|id| !id.is_empty()), "no conversation in {}", calls[1].body);
    for (call, query, conversation) in
        [(&calls[0], "Where do swifts sleep?", &json!("")), (&calls[1], "And eat?", conversation)]
    {
        let body = json!({
            "inputs": {}, "query": query, "response_mode": "streaming", "conversation_id": conversation,
            "user": call.body["user"], "auto_generate_name": false,
        });
        check_call(call, "/v1/chat-messages", &headers, &body)?;
    }
    check_user(calls, |body| &body["user"])
}

/// The user is an opaque id, the same in every call.
fn check_user(calls: &[Call], user: impl Fn(&Value) -> &Value) -> Result<()> {
    for call in calls {
        let user_id = user(&call.body);
        ensure!(user_id == user(&calls[0].body), "the user changed its name");
        ensure!(user_id.as_str().is_some_and(|it| it.len() >= 16 && !it.contains("ana")), "not opaque: {user_id}");
    }
    Ok(())
}

#[tokio::test]
async fn openai_on_sqlite() -> Result<()> {
    check_openai(&two_turns(StoreAt::Sqlite, Dialect::OpenAi).await?)
}

#[tokio::test]
async fn anthropic_on_sqlite() -> Result<()> {
    check_anthropic(&two_turns(StoreAt::Sqlite, Dialect::Anthropic).await?)
}

#[tokio::test]
async fn dify_on_sqlite() -> Result<()> {
    check_dify(&two_turns(StoreAt::Sqlite, Dialect::Dify).await?)
}

#[tokio::test]
async fn all_three_on_mongodb() -> Result<()> {
    check_openai(&two_turns(StoreAt::mongodb().await?, Dialect::OpenAi).await?)?;
    check_anthropic(&two_turns(StoreAt::mongodb().await?, Dialect::Anthropic).await?)?;
    check_dify(&two_turns(StoreAt::mongodb().await?, Dialect::Dify).await?)
}

#[tokio::test]
async fn the_conversation_given_to_the_model_is_cut_to_whole_messages() -> Result<()> {
    let provider = FakeProvider::start().await?;
    let model = Model::at("bird", Dialect::OpenAi, &provider.url())
        .with("system_prompt", PROMPT)
        .with("context_tokens", 400)
        .with("max_output_tokens", 100);
    let stack = Stack::builder().model(model).start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    let long = |turn: usize| format!("question {turn} {}", "blah ".repeat(40));
    for turn in 0..8 {
        provider.script(Script::answer([format!("answer {turn}")]));
        ana.converse(&session, &long(turn)).await?;
    }
    let calls = provider.journal();
    let messages = calls[7].body["messages"].as_array().cloned().unwrap_or_default();
    let (first, rest) = messages.split_first().map(|(first, rest)| (first.clone(), rest)).unwrap_or_default();
    ensure!(first["content"] == PROMPT, "the instructions stay: {first}");
    ensure!(rest.len() >= 3 && rest.len() < 15, "{} messages", rest.len());
    ensure!(rest.last().is_some_and(|it| it["content"] == long(7)), "the question itself is the end");
    for message in rest {
        let whole =
            (0..8).any(|turn| message["content"] == long(turn) || message["content"] == format!("answer {turn}"));
        ensure!(whole, "a message was cut: {message}");
    }
    Ok(())
}
