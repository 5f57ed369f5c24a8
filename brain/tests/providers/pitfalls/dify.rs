//! Dify's chat apps: events, errors, and the stop call.

use std::time::{Duration, Instant};

use chatbox_brain::llm::{Chunk, ErrorClass, Prompt, Remedy};
use chatbox_brain::usage::FinishReason;
use chatbox_brain::usage::TokenUsage;
use chatbox_tests::provider::dialect::dify::{event_of, fault_event, refusal};
use chatbox_tests::provider::{End, FakeProvider, Script, Step};
use serde_json::{Value, json};

use super::wire::{Asked, Refused, ask_once, assert_refusals, failed};
use crate::support::{ask, ask_with, chats, model, prompt};

/// How long the brain waits for the event that confirms an answer which may be complete.
const LINGER: Duration = Duration::from_millis(1500);
/// Shorter than the idle timeout of [`model`]: a call that ends within it has not waited for the timeout.
const BELOW_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

fn event(name: &str, more: &Value) -> Step {
    Step::Bytes(event_of("c", "t", name, more))
}

fn say(name: &str, text: &str) -> Step {
    event(name, &json!({"answer": text}))
}

fn ended() -> Step {
    event("message_end", &json!({"metadata": {"usage": {"prompt_tokens": 10, "completion_tokens": 3}}}))
}

fn finished(status: &str) -> Step {
    event("workflow_finished", &json!({"data": {"status": status, "outputs": {}, "error": null}}))
}

async fn answer(fake: &FakeProvider, steps: Vec<Step>) -> Asked {
    ask_once(fake, "dify", Script::steps(steps)).await
}

#[tokio::test]
async fn dify_events_with_text() {
    let fake = FakeProvider::start().await.unwrap();
    for (row, steps, text, replaced) in [
        ("message appends", vec![say("message", "a"), say("message", "b")], "ab", vec![]),
        ("agent_message appends", vec![say("agent_message", "a"), say("agent_message", "b")], "ab", vec![]),
        ("message closes an agent", vec![say("agent_message", "a"), say("message", "abc")], "abc", vec!["a"]),
        ("message_replace", vec![say("message", "bad"), say("message_replace", "[hidden]")], "[hidden]", vec!["bad"]),
    ] {
        let (read, end) = answer(&fake, [steps, vec![ended(), Step::Stall]].concat()).await;
        assert_eq!((read.text.as_str(), end.unwrap()), (text, FinishReason::Stop), "{row}");
        assert_eq!(
            (read.replaced, read.conversation.as_deref()),
            (replaced.iter().map(|text| text.to_string()).collect(), Some("c")),
            "{row}"
        );
        assert_eq!(read.usage, Some(TokenUsage { input: 10, cached: 0, output: 3, estimated: false }), "{row}");
    }
    let escaped =
        Step::Bytes("data: {\"event\":\"message\",\"answer\":\"Gr\\u00fc\\u00dfe \\ud83d\\ude00\"}\n\n".into());
    let (read, _) = answer(&fake, vec![escaped, ended()]).await;
    assert_eq!(read.text, "Grüße 😀", "old builds escape");
}

#[tokio::test]
async fn dify_events_without_text() {
    let fake = FakeProvider::start().await.unwrap();
    for (row, more) in [
        ("agent_thought", json!({"id": "x", "position": 1, "thought": "hm", "tool_input": "{}", "message_files": []})),
        ("message_file", json!({"id": "x", "type": "image", "belongs_to": "assistant", "url": "/x"})),
        ("iteration_started", json!({"data": {"id": "x"}})),
        ("loop_next", json!({"data": {}})),
        ("node_retry", json!({"data": {"status": "retry", "error": "x"}})),
        ("agent_log", json!({"data": {"label": "x", "status": "start", "error": null}})),
        ("reasoning_chunk", json!({"data": {"reasoning": "hm", "is_final": false}})),
        ("tts_message", json!({"audio": "AAAA"})),
        ("tts_message_end", json!({"audio": ""})),
        ("ping", json!({})),
        ("something_new", json!({"data": {"status": "x"}})),
    ] {
        let (read, end) =
            answer(&fake, vec![say("message", "a"), event(row, &more), say("message", "b"), ended()]).await;
        assert_eq!((read.text.as_str(), end.unwrap(), read.replaced.len()), ("ab", FinishReason::Stop, 0), "{row}");
    }
    let first = vec![Step::Bytes("event: ping\n\n".into()), say("message", "a"), ended()];
    assert_eq!(answer(&fake, first).await.0.text, "a", "a ping before anything else");
    let zero = event("message_end", &json!({"metadata": {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}}));
    for end in [zero, event("message_end", &json!({"metadata": {}})), event("message_end", &json!({}))] {
        assert_eq!(answer(&fake, vec![say("message", "a"), end]).await.0.usage, None, "message_end: no model ran");
    }
}

#[tokio::test]
async fn dify_events_of_workflows() {
    let fake = FakeProvider::start().await.unwrap();
    let started = || event("workflow_started", &json!({"data": {"id": "r", "inputs": {}}}));
    let node = || event("node_finished", &json!({"data": {"status": "succeeded", "outputs": {"text": "x"}}}));
    let fault = || Step::Bytes(fault_event(400, "provider_quota_exceeded", "x"));
    for (row, last, expected, quick) in [
        (
            "message_end, workflow_finished",
            vec![ended(), finished("succeeded"), Step::Stall],
            Ok(FinishReason::Stop),
            true,
        ),
        (
            "workflow_finished, message_end",
            vec![finished("succeeded"), ended(), Step::Stall],
            Ok(FinishReason::Stop),
            true,
        ),
        ("partial-succeeded", vec![finished("partial-succeeded"), ended()], Ok(FinishReason::Stop), true),
        ("stopped", vec![finished("stopped"), ended()], Ok(FinishReason::Interrupted), true),
        ("message_end alone", vec![ended(), Step::Stall], Ok(FinishReason::Stop), false),
        ("workflow_finished alone", vec![finished("succeeded"), Step::Stall], Ok(FinishReason::Stop), false),
        ("workflow_finished and the end", vec![finished("succeeded")], Ok(FinishReason::Stop), true),
        ("neither", vec![], Err(ErrorClass::Truncated), true),
        ("failed and its error", vec![finished("failed"), fault()], Err(ErrorClass::Quota), true),
        ("failed alone", vec![finished("failed")], Err(ErrorClass::Server), true),
        ("workflow_paused", vec![event("workflow_paused", &json!({"data": {}}))], Err(ErrorClass::Protocol), true),
        ("human_input_required", vec![event("human_input_required", &json!({}))], Err(ErrorClass::Protocol), true),
    ] {
        // A text may come before its node has begun.
        let steps = [vec![started(), say("message", "hi"), node()], last].concat();
        let begin = Instant::now();
        let (read, end) = answer(&fake, steps).await;
        assert_eq!((read.text.as_str(), end.map_err(|error| error.class)), ("hi", expected), "{row}");
        assert_eq!(begin.elapsed() < LINGER, quick, "{row}: {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn dify_errors_before_the_stream() {
    let rows: Vec<Refused> = vec![
        ("400 invalid_param", refusal(400, "invalid_param", "x"), ErrorClass::Rejected, false),
        ("400 bad_request", refusal(400, "bad_request", "x"), ErrorClass::Rejected, false),
        ("400 app_unavailable", refusal(400, "app_unavailable", "x"), ErrorClass::Rejected, false),
        ("400 not_chat_app", refusal(400, "not_chat_app", "x"), ErrorClass::Rejected, false),
        ("400 conversation_completed", refusal(400, "conversation_completed", "x"), ErrorClass::Rejected, false),
        ("400 provider_not_initialize", refusal(400, "provider_not_initialize", "x"), ErrorClass::Rejected, false),
        ("400 provider_quota_exceeded", refusal(400, "provider_quota_exceeded", "x"), ErrorClass::Quota, false),
        (
            "400 model_currently_not_support",
            refusal(400, "model_currently_not_support", "x"),
            ErrorClass::NotFound,
            false,
        ),
        ("400 completion_request_error", refusal(400, "completion_request_error", "x"), ErrorClass::Server, false),
        ("401", refusal(401, "unauthorized", "x"), ErrorClass::Auth, false),
        ("403", refusal(403, "forbidden", "x"), ErrorClass::Auth, false),
        ("404", refusal(404, "not_found", "x"), ErrorClass::NotFound, false),
        ("429 too_many_requests", refusal(429, "too_many_requests", "x"), ErrorClass::RateLimited, true),
        ("429 rate_limit_error", refusal(429, "rate_limit_error", "x"), ErrorClass::Quota, false),
        ("500 internal_server_error", refusal(500, "internal_server_error", "x"), ErrorClass::Server, true),
        ("500 unknown", refusal(500, "unknown", "x"), ErrorClass::Server, true),
        ("502 of a proxy", Script::body(502, "text/html", "<html>"), ErrorClass::Server, true),
    ];
    assert_refusals("dify", rows).await;
}

#[tokio::test]
async fn dify_errors_within_the_stream() {
    let fake = FakeProvider::start().await.unwrap();
    for (status, code, class) in [
        (400, "completion_request_error", ErrorClass::Server),
        (400, "provider_quota_exceeded", ErrorClass::Quota),
        (401, "unauthorized", ErrorClass::Auth),
        (429, "too_many_requests", ErrorClass::RateLimited),
        (500, "internal_server_error", ErrorClass::Server),
        (503, "a_new_code", ErrorClass::Overloaded),
    ] {
        let script =
            Script::steps([say("message", "so far"), Step::Bytes(fault_event(status, code, "x")), Step::Stall]);
        assert_eq!(failed(&fake, "dify", script, "so far", code).await, class, "{code}");
    }
}

#[tokio::test]
async fn dify_errors_of_a_lost_conversation_begin_a_new_one() {
    let fake = FakeProvider::start().await.unwrap();
    let model = model("dify", &fake.url(), json!({"max_retries": 0}));
    let going_on = Prompt { conversation: Some("c-1".into()), ..prompt() };
    for (row, lost) in [
        ("404 not_found", refusal(404, "not_found", "Conversation Not Exists.")),
        ("400 conversation_completed", refusal(400, "conversation_completed", "x")),
    ] {
        let before = fake.journal().len();
        fake.script(lost.clone());
        ask_with(&model, &going_on).await.1.unwrap();
        let asked: Vec<Value> =
            fake.journal()[before..].iter().map(|call| call.body["conversation_id"].clone()).collect();
        assert_eq!(asked, ["c-1", ""], "{row}: what is called again");
        fake.script(lost.clone());
        fake.script(lost);
        let error = ask_with(&model, &going_on).await.1.unwrap_err();
        assert_eq!((error.remedy(), fake.journal().len() - before), (None, 4), "{row}: once and no more");
    }
    fake.script(Script::body(404, "text/html", "<html>"));
    let error = ask_with(&model, &going_on).await.1.unwrap_err();
    assert_ne!(error.remedy(), Some(Remedy::NewConversation), "a proxy's 404 says nothing of conversations");
}

#[tokio::test]
async fn dify_stop_names_the_task_and_the_user() {
    let fake = FakeProvider::start().await.unwrap();
    let model = model("dify", &fake.url(), json!({}));
    fake.script(Script::steps([event("message", &json!({"answer": "a"})), Step::Stall]));
    let mut generation = model.provider.generate(&prompt()).await.unwrap();
    while !matches!(generation.next().await.unwrap().unwrap(), Chunk::Delta(_)) {}
    generation.cancel().await;
    let calls = fake.wait_until(|calls| chats(calls).iter().all(|call| call.end.is_some())).await.unwrap();
    let stop = &calls[1];
    assert_eq!((stop.method.as_str(), stop.path.as_str()), ("POST", "/v1/chat-messages/t/stop"), "{calls:#?}");
    assert_eq!(stop.body, json!({"user": "u-hash"}));
    assert_eq!(stop.headers.get("x-client-request-id").map(String::as_str), Some("call-7"));
    let (closed, end) = calls[0].end.unwrap();
    assert!(end == End::ClientClosed && closed >= stop.at, "stop first, then close");
}

#[tokio::test]
async fn dify_stop_needs_an_answer_under_way() {
    let fake = FakeProvider::start().await.unwrap();
    let model = model("dify", &fake.url(), json!({"max_retries": 0}));
    // No event has named the task: the cancellation waits shortly for one, then closes the connection.
    fake.script(Script::steps([Step::KeepAlive, Step::Stall]));
    let begin = Instant::now();
    model.provider.generate(&prompt()).await.unwrap().cancel().await;
    assert!(begin.elapsed() < BELOW_IDLE_TIMEOUT, "{:?}", begin.elapsed());
    // Already at its end.
    fake.script(Script::steps([say("message", "a"), ended(), Step::Stall]));
    let mut generation = model.provider.generate(&prompt()).await.unwrap();
    while !matches!(generation.next().await.unwrap().unwrap(), Chunk::Usage(_)) {}
    generation.cancel().await;
    ask(&model).await.1.unwrap();
    assert!(fake.journal().iter().all(|call| !call.path.ends_with("/stop")));
}
