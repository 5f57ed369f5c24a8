//! Every provider against the fake provider, over real sockets and through the catalog, as the brain calls it.

use std::time::{Duration, Instant};

use chatbox_brain::llm::model::Model;
use chatbox_brain::llm::{Chunk, ErrorClass, Generation, Prompt};
use chatbox_brain::usage::FinishReason;
use chatbox_brain::usage::TokenUsage;
use chatbox_tests::provider::dialect::{anthropic, dify, openai};
use chatbox_tests::provider::{Call, End, FakeProvider, Gate, Script, Step};
use serde_json::{Value, json};

use super::support::{KINDS, ask, ask_with, chats, model, prompt};

/// The key of all models here, as [`super::support::KEY_ENV`] holds it.
const KEY: &str = env!("CARGO_PKG_NAME");
/// How long the brain waits for the event that confirms an answer which may be complete.
const LINGER: Duration = Duration::from_millis(1500);
/// Shorter than the idle timeout of [`model`]: a call that ends within it has not waited for the timeout.
const BELOW_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

#[tokio::test]
async fn answers_arrive_whole_however_the_bytes_are_cut() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({}));
        for split in [None, Some(1), Some(7)] {
            let script = Script::answer(["Grüße", ", ", "😀 日本", "\r\n\u{2028}!"]).then(Step::KeepAlive);
            fake.script(match split {
                Some(bytes) => script.split_every(bytes),
                None => script,
            });
            let (read, end) = ask(&model).await;
            assert_eq!(end.unwrap(), FinishReason::Stop, "{kind}");
            assert_eq!(read.text, "Grüße, 😀 日本\r\n\u{2028}!", "{kind}");
            assert_eq!(read.usage, Some(TokenUsage { input: 10, cached: 0, output: 4, estimated: false }), "{kind}");
        }
    }
}

#[tokio::test]
async fn requests_are_exactly_what_the_protocols_ask_for() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        ask(&model(kind, &fake.url(), json!({}))).await.1.unwrap();
    }
    let calls = fake.journal();
    let header = |call: &Call, name: &str| call.headers.get(name).cloned().unwrap_or_default();
    for call in &calls {
        assert_eq!(header(call, "x-client-request-id"), "call-7");
        assert_eq!((call.method.as_str(), header(call, "content-type").as_str()), ("POST", "application/json"));
        assert!(!call.headers.contains_key("accept-encoding"), "a stream must not be compressed");
    }
    assert_eq!(calls[0].path, "/v1/chat/completions");
    assert_eq!(header(&calls[0], "authorization"), format!("Bearer {KEY}"));
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is this?"},
        {"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Sure?"}]);
    let body = json!({"model": "model-x", "stream": true, "stream_options": {"include_usage": true},
        "messages": messages, "max_completion_tokens": 4096, "user": "u-hash"});
    assert_eq!(calls[0].body, body);

    assert_eq!(calls[1].path, "/v1/messages");
    assert_eq!(
        (header(&calls[1], "x-api-key"), header(&calls[1], "anthropic-version")),
        (KEY.into(), "2026-10-21".into())
    );
    let messages = json!([{"role": "user", "content": "What is this?"}, {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Sure?"}]);
    let body = json!({"model": "model-x", "max_tokens": 4096, "stream": true, "system": "Be brief.",
        "messages": messages, "metadata": {"user_id": "u-hash"}});
    assert_eq!(calls[1].body, body);

    assert_eq!(calls[2].path, "/v1/chat-messages");
    assert_eq!(header(&calls[2], "authorization"), format!("Bearer {KEY}"));
    let body = json!({"query": "Sure?", "inputs": {}, "response_mode": "streaming", "user": "u-hash",
        "conversation_id": "", "auto_generate_name": false});
    assert_eq!(calls[2].body, body);
}

#[tokio::test]
async fn compatible_servers_are_a_matter_of_settings() {
    let fake = FakeProvider::start().await.unwrap();
    let azure = format!("http://{}/openai/deployments/d/", fake.addr());
    let more = json!({"auth_header": "api-key", "api_version": "2024-10-21", "max_output_tokens": 7,
        "max_tokens_field": "max_tokens", "temperature": 0.5});
    ask(&model("openai", &azure, more)).await.1.unwrap();
    ask(&model("openai", &fake.url(), json!({"api_key_env": ""}))).await.1.unwrap();
    let calls = fake.journal();
    assert_eq!(calls[0].path, "/openai/deployments/d/chat/completions");
    assert_eq!(calls[0].query, "api-version=2024-10-21");
    assert_eq!(calls[0].headers.get("api-key").map(String::as_str), Some(KEY));
    assert_eq!((&calls[0].body["max_tokens"], &calls[0].body["temperature"]), (&json!(7), &json!(0.5)));
    assert!(calls[0].body.get("max_completion_tokens").is_none());
    assert!(!calls[1].headers.contains_key("authorization"));
}

#[tokio::test]
async fn anthropic_takes_a_temperature_only_in_its_older_version() {
    let fake = FakeProvider::start().await.unwrap();
    let model = model("anthropic", &fake.url(), json!({"temperature": 0.5}));
    fake.script(Script::answer(["a"]));
    fake.script(anthropic::refusal(400, "invalid_request_error", "temperature: not supported by this model", None));
    ask(&model).await.1.unwrap();
    ask(&model).await.1.unwrap();
    let calls = fake.journal();
    assert!(calls.iter().all(|call| call.headers["anthropic-version"] == "2023-06-01"));
    let temperatures: Vec<_> = calls.iter().map(|call| call.body.get("temperature").cloned()).collect();
    assert_eq!(temperatures, [Some(json!(0.5)), Some(json!(0.5)), None]);
}

#[tokio::test]
async fn refusals_have_a_class_and_only_some_are_tried_again() {
    let fake = FakeProvider::start().await.unwrap();
    let html = || Script::body(502, "text/html", "<html><body>Bad Gateway</body></html>");
    let cases: Vec<(&str, Script, ErrorClass, bool)> = vec![
        (
            "openai",
            openai::refusal(400, "invalid_request_error", "unsupported_value", "x"),
            ErrorClass::Rejected,
            false,
        ),
        (
            "openai",
            openai::refusal(400, "invalid_request_error", "context_length_exceeded", "x"),
            ErrorClass::ContextLength,
            false,
        ),
        ("openai", openai::refusal(400, "", "content_filter", "x"), ErrorClass::ContentFiltered, false),
        ("openai", openai::refusal(401, "invalid_request_error", "invalid_api_key", "x"), ErrorClass::Auth, false),
        ("openai", openai::refusal(403, "", "", "x"), ErrorClass::Auth, false),
        ("openai", openai::refusal(404, "invalid_request_error", "model_not_found", "x"), ErrorClass::NotFound, false),
        ("openai", openai::refusal(408, "", "", "x"), ErrorClass::Timeout, true),
        ("openai", openai::refusal(409, "", "", "x"), ErrorClass::Overloaded, true),
        ("openai", openai::refusal(422, "", "", "x"), ErrorClass::Rejected, false),
        ("openai", openai::refusal(429, "requests", "rate_limit_exceeded", "x"), ErrorClass::RateLimited, true),
        ("openai", openai::refusal(429, "insufficient_quota", "insufficient_quota", "x"), ErrorClass::Quota, false),
        (
            "openai",
            openai::refusal(429, "insufficient_quota", "credit_balance_exhausted", "x"),
            ErrorClass::Quota,
            false,
        ),
        ("openai", openai::refusal(500, "server_error", "", "x"), ErrorClass::Server, true),
        (
            "openai",
            openai::refusal(503, "service_unavailable_error", "server_is_overloaded", "x"),
            ErrorClass::Overloaded,
            true,
        ),
        ("openai", Script::json(500, &json!({"error": "model failed to load"})), ErrorClass::Server, true),
        (
            "openai",
            Script::json(400, &json!({"object": "error", "message": "x", "code": 400})),
            ErrorClass::Rejected,
            false,
        ),
        ("openai", html(), ErrorClass::Server, true),
        ("openai", Script::body(520, "text/plain", ""), ErrorClass::Server, true),
        (
            "openai",
            Script::body(307, "text/plain", "").header("location", "/v1/elsewhere"),
            ErrorClass::Rejected,
            false,
        ),
        ("openai", openai::refusal(500, "", "", "x").header("x-should-retry", "false"), ErrorClass::Server, false),
        (
            "anthropic",
            anthropic::refusal(400, "invalid_request_error", "prompt is too long: 9 > 8", None),
            ErrorClass::ContextLength,
            false,
        ),
        (
            "anthropic",
            anthropic::refusal(400, "invalid_request_error", "Your credit balance is too low", None),
            ErrorClass::Quota,
            false,
        ),
        ("anthropic", anthropic::refusal(401, "authentication_error", "x", None), ErrorClass::Auth, false),
        ("anthropic", anthropic::refusal(402, "billing_error", "x", None), ErrorClass::Quota, false),
        ("anthropic", anthropic::refusal(404, "not_found_error", "x", None), ErrorClass::NotFound, false),
        ("anthropic", anthropic::refusal(429, "rate_limit_error", "x", None), ErrorClass::RateLimited, true),
        (
            "anthropic",
            anthropic::refusal(429, "rate_limit_error", "x", Some("contract_spend_limit_reached")),
            ErrorClass::Quota,
            false,
        ),
        ("anthropic", anthropic::refusal(504, "timeout_error", "x", None), ErrorClass::Timeout, true),
        ("anthropic", anthropic::refusal(529, "overloaded_error", "x", None), ErrorClass::Overloaded, true),
        ("anthropic", Script::body(413, "text/html", "<html>"), ErrorClass::Rejected, false),
        ("dify", dify::refusal(400, "invalid_param", "x"), ErrorClass::Rejected, false),
        ("dify", dify::refusal(400, "provider_quota_exceeded", "x"), ErrorClass::Quota, false),
        ("dify", dify::refusal(400, "completion_request_error", "x"), ErrorClass::Server, false),
        ("dify", dify::refusal(401, "unauthorized", "x"), ErrorClass::Auth, false),
        ("dify", dify::refusal(404, "not_found", "x"), ErrorClass::NotFound, false),
        ("dify", dify::refusal(429, "too_many_requests", "x"), ErrorClass::RateLimited, true),
        ("dify", dify::refusal(429, "rate_limit_error", "x"), ErrorClass::Quota, false),
        ("dify", dify::refusal(500, "internal_server_error", "x"), ErrorClass::Server, true),
        ("dify", html(), ErrorClass::Server, true),
    ];
    for (kind, script, class, retried) in cases {
        let before = fake.journal().len();
        // With a hint of a millisecond the test needs no patience.
        fake.always(script.clone().header("retry-after-ms", "1"));
        let (read, end) = ask(&model(kind, &fake.url(), json!({"max_retries": 1}))).await;
        let error = end.unwrap_err();
        assert_eq!((error.class, error.retryable()), (class, retried), "{kind}: {script:?}");
        assert!(read.text.is_empty() && error.status.is_some());
        // What is too long is sent once more with less history.
        let again = retried || class == ErrorClass::ContextLength;
        assert_eq!(fake.journal().len() - before, 1 + usize::from(again), "{kind}: {script:?}");
    }
}

#[tokio::test]
async fn a_hint_when_to_try_again_is_followed_up_to_the_cap() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({}));
        let busy = || Script::body(503, "text/plain", "busy");
        fake.script(busy().header("retry-after-ms", "300"));
        fake.script(busy().header("retry-after", "0.2"));
        let before = fake.journal().len();
        assert_eq!(ask(&model).await.0.text, "This is the fake provider.", "{kind}");
        let calls = fake.journal().split_off(before);
        assert_eq!(calls.len(), 3);
        assert!(calls[1].at - calls[0].at >= Duration::from_millis(300));
        assert!(calls[2].at - calls[1].at >= Duration::from_millis(200));

        fake.script(busy().header("retry-after", "15"));
        let begin = Instant::now();
        let error = ask(&model).await.1.unwrap_err();
        assert_eq!((error.class, error.retry_after), (ErrorClass::Overloaded, Some(Duration::from_secs(15))));
        assert!(begin.elapsed() < Duration::from_secs(10), "a wait above the cap: the call fails without it");
    }
}

#[tokio::test]
async fn connections_that_break_before_the_first_text_are_tried_again() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({}));
        fake.script(Script::no_reply());
        fake.script(Script::steps([Step::Begin, Step::KeepAlive, Step::Cut]));
        let (read, end) = ask(&model).await;
        assert_eq!((read.text.as_str(), end.unwrap()), ("This is the fake provider.", FinishReason::Stop), "{kind}");
    }
    assert_eq!(chats(&fake.journal()).len(), 9);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = ask(&model("openai", &format!("http://{free}/v1"), json!({"max_retries": 0}))).await.1.unwrap_err();
    assert_eq!(error.class, ErrorClass::Connect);
}

#[tokio::test]
async fn connections_that_break_later_leave_the_text_and_an_error() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({}));
        for end in [Some(Step::Cut), None] {
            let script = Script::begun(["so ", "far"]);
            fake.script(match end.clone() {
                Some(step) => script.then(step),
                None => script,
            });
            let (read, result) = ask(&model).await;
            assert_eq!(
                (read.text.as_str(), result.unwrap_err().class),
                ("so far", ErrorClass::Truncated),
                "{kind} {end:?}"
            );
        }
    }
    assert_eq!(chats(&fake.journal()).len(), 6, "no further try after the first text");
}

#[tokio::test]
async fn a_body_cut_at_any_byte_is_never_taken_for_whole() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({"max_retries": 0}));
        let whole = || Script::answer(["a", "é"]);
        fake.script(whole());
        ask(&model).await.1.unwrap();
        let calls = fake.wait_until(|calls| calls.iter().all(|call| call.end.is_some())).await.unwrap();
        let length = chats(&calls).last().unwrap().bytes_sent;
        for at in (0..length).step_by(23).chain(length - 20..length) {
            fake.script(whole().cut_at(at));
            let (read, end) = ask(&model).await;
            let end = end.map_err(|error| error.class);
            assert_eq!(end, Err(ErrorClass::Truncated), "{kind} cut at {at}");
            assert!("aé".starts_with(&read.text));
        }
    }
}

#[tokio::test]
async fn silence_is_an_error_before_and_within_an_answer() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let patient = json!({"first_token_timeout_ms": 200, "max_retries": 1});
        let stalled = || Script::steps([Step::Begin, Step::Stall]);
        let model_first = model(kind, &fake.url(), patient);
        fake.script(stalled());
        assert_eq!(ask(&model_first).await.0.text, "This is the fake provider.", "{kind}: tried again");
        fake.script(stalled());
        fake.script(Script::steps([Step::KeepAlive, Step::Stall]));
        assert_eq!(ask(&model_first).await.1.unwrap_err().class, ErrorClass::Timeout, "{kind}");

        let idle = model(kind, &fake.url(), json!({"idle_timeout_ms": 200}));
        fake.script(Script::begun(["so far"]).then(Step::Stall));
        let (read, end) = ask(&idle).await;
        assert_eq!((read.text.as_str(), end.unwrap_err().class), ("so far", ErrorClass::Timeout), "{kind}");
        // Signs of life are enough to be waited for.
        let alive = std::iter::repeat_n([Step::Wait(Duration::from_millis(80)), Step::KeepAlive], 5).flatten();
        let script = alive.fold(Script::begun(["a"]), Script::then).then(Step::Finish { input: 1, output: 1 });
        fake.script(script);
        assert_eq!(ask(&idle).await.1.unwrap(), FinishReason::Stop, "{kind}");

        let total = model(kind, &fake.url(), json!({"total_timeout_ms": 300}));
        let forever = Step::Stamps { every: Duration::from_millis(5), count: None, until: None };
        fake.script(Script::steps([Step::Begin, forever]));
        let (read, end) = ask(&total).await;
        assert_eq!(end.unwrap_err().class, ErrorClass::Timeout, "{kind}");
        assert!(!read.text.is_empty());
    }
    // The client has closed every cancelled call, and has sent Dify a stop call.
    let closed = |calls: &[Call]| calls.iter().filter(|call| call.is_chat()).all(|call| call.end.is_some());
    let calls = fake.wait_until(closed).await.unwrap();
    assert!(calls.iter().any(|call| call.path.ends_with("/stop")));
}

async fn first_text(model: &Model) -> Box<dyn Generation> {
    let mut generation = model.provider.generate(&prompt()).await.unwrap();
    loop {
        match generation.next().await {
            Some(Ok(Chunk::Delta(_))) => return generation,
            Some(Ok(_)) => {}
            other => panic!("no text: {other:?}"),
        }
    }
}

#[tokio::test]
async fn cancelling_closes_the_connection_and_stops_dify_first() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({}));
        fake.script(Script::begun(["on and on"]).then(Step::Stall));
        let generation = first_text(&model).await;
        let before = Instant::now();
        generation.cancel().await;
        let ended = |calls: &[Call]| calls.iter().filter(|call| call.is_chat()).all(|call| call.end.is_some());
        let calls = fake.wait_until(ended).await.unwrap();
        let chat = *chats(&calls).last().unwrap();
        assert_eq!(chat.ended(), Some(End::ClientClosed), "{kind}");
        assert!(before.elapsed() < BELOW_IDLE_TIMEOUT, "{kind}: {:?}", before.elapsed());
        let stop = calls.iter().find(|call| call.path.ends_with("/stop"));
        assert_eq!(stop.is_some(), kind == "dify");
        if let Some(stop) = stop {
            assert_eq!(stop.path, format!("/v1/chat-messages/task-fake-{}/stop", calls.len() - 2));
            assert_eq!(stop.body, json!({"user": "u-hash"}));
            assert!(chat.end.unwrap().0 >= stop.at, "the stream is read until the stop call is made");
        }
    }
}

#[tokio::test]
async fn dify_is_stopped_even_before_its_first_event_was_read() {
    let fake = FakeProvider::start().await.unwrap();
    let model = model("dify", &fake.url(), json!({}));
    let gate = Gate::new();
    let steps = [Step::KeepAlive, Step::Hold(gate.clone()), Step::Delta("late".into()), Step::Stall];
    fake.script(Script::steps(steps));
    let generation = model.provider.generate(&prompt()).await.unwrap();
    gate.open();
    generation.cancel().await;
    let calls = fake.journal();
    assert!(calls.iter().any(|call| call.path.ends_with("/stop")), "{calls:#?}");
}

#[tokio::test]
async fn dropping_an_answer_closes_its_connection_and_reading_it_keeps_it() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({}));
        let before = fake.journal().len();
        for _ in 0..3 {
            ask(&model).await.1.unwrap();
        }
        let ports: std::collections::HashSet<u16> =
            fake.journal().split_off(before).iter().map(|call| call.client_port).collect();
        assert_eq!(ports.len(), 1, "{kind}: whole answers share a connection");
        fake.script(Script::begun(["a"]).then(Step::Stall));
        drop(first_text(&model).await);
        let calls = fake.wait_until(|calls| calls.last().is_some_and(|call| call.end.is_some())).await.unwrap();
        assert_eq!(calls.last().unwrap().ended(), Some(End::ClientClosed));
    }
}

#[tokio::test]
async fn faults_within_a_stream_are_told_and_tried_again_before_the_first_text() {
    let fake = FakeProvider::start().await.unwrap();
    let fault = |kind: &str| match kind {
        "openai" => openai::fault_event("server_error", "", "x"),
        "anthropic" => anthropic::fault_event("overloaded_error", "Overloaded"),
        _ => dify::fault_event(500, "internal_server_error", "x"),
    };
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({}));
        fake.script(Script::steps([Step::Begin, Step::Bytes(fault(kind)), Step::Stall]));
        assert_eq!(ask(&model).await.0.text, "This is the fake provider.", "{kind}");
        fake.script(Script::begun(["so far"]).then(Step::Bytes(fault(kind))));
        let (read, end) = ask(&model).await;
        assert_eq!(read.text, "so far");
        assert!(matches!(end.unwrap_err().class, ErrorClass::Server | ErrorClass::Overloaded), "{kind}");
    }
}

#[tokio::test]
async fn replies_that_are_no_stream_are_read_or_refused_cleanly() {
    let fake = FakeProvider::start().await.unwrap();
    let whole: [fn(&str) -> Script; 3] = [openai::whole, anthropic::whole, dify::whole];
    for (kind, whole) in KINDS.into_iter().zip(whole) {
        let model = model(kind, &fake.url(), json!({"max_retries": 0}));
        fake.script(whole("all at once"));
        let (read, end) = ask(&model).await;
        assert_eq!((read.text.as_str(), end.unwrap()), ("all at once", FinishReason::Stop), "{kind}");
        assert_eq!(read.usage, Some(TokenUsage { input: 10, cached: 0, output: 1, estimated: false }), "{kind}");

        let line = format!("data: {}", "x".repeat(10 << 20));
        for (script, class) in [
            (Script::body(200, "text/html", "<html>log in</html>"), ErrorClass::Protocol),
            (Script::body(200, "application/json", "{not json"), ErrorClass::Protocol),
            (Script::body(200, "text/event-stream", ""), ErrorClass::Truncated),
            (Script::body(200, "text/event-stream", "data: {not json\n\n"), ErrorClass::Protocol),
            (Script::body(200, "text/event-stream", line.clone()), ErrorClass::Protocol),
            (Script::body(200, "application/json", line), ErrorClass::Protocol),
            (Script::answer(["a"]).header("content-encoding", "gzip"), ErrorClass::Protocol),
        ] {
            fake.script(script);
            assert_eq!(ask(&model).await.1.unwrap_err().class, class, "{kind}");
        }
    }
}

#[tokio::test]
async fn no_error_ever_holds_the_key() {
    let fake = FakeProvider::start().await.unwrap();
    let said = format!("the key {KEY} is wrong, really: {KEY}");
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({"max_retries": 0}));
        for script in [
            Script::body(401, "text/plain", said.clone()),
            Script::body(500, "text/plain", said.clone()),
            Script::body(200, KEY, ""),
            openai::refusal(400, "", "", &said),
            anthropic::refusal(400, "invalid_request_error", &said, None),
            dify::refusal(400, "invalid_param", &said),
            Script::steps([Step::Bytes(openai::fault_event("", "", &said))]),
            Script::steps([Step::Bytes(anthropic::fault_event("api_error", &said))]),
            Script::steps([Step::Bytes(dify::fault_event(400, "invalid_param", &said))]),
        ] {
            fake.script(script.clone());
            let error = ask(&model).await.1.unwrap_err();
            assert!(!format!("{error} {error:?}").contains(KEY), "{kind} {script:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn dify_keeps_its_conversation_and_begins_anew_when_it_is_lost() {
    let fake = FakeProvider::start().await.unwrap();
    let model = model("dify", &fake.url(), json!({}));
    let (read, _) = ask(&model).await;
    assert_eq!(read.conversation.as_deref(), Some("conversation-0"));
    let next = Prompt { conversation: read.conversation, ..prompt() };
    assert_eq!(ask_with(&model, &next).await.0.conversation.as_deref(), Some("conversation-0"));
    for lost in
        [dify::refusal(404, "not_found", "Conversation Not Exists."), dify::refusal(400, "conversation_completed", "x")]
    {
        fake.script(lost);
        let (read, end) = ask_with(&model, &next).await;
        assert_eq!(end.unwrap(), FinishReason::Stop);
        assert!(read.conversation.is_some_and(|id| id != "conversation-0"));
    }
    let asked: Vec<Value> = fake.journal().iter().map(|call| call.body["conversation_id"].clone()).collect();
    assert_eq!(asked, ["", "conversation-0", "conversation-0", "", "conversation-0", ""]);
}

#[tokio::test]
async fn dify_workflows_end_with_whichever_of_their_two_ends_comes() {
    let fake = FakeProvider::start().await.unwrap();
    let model = model("dify", &fake.url(), json!({}));
    let event = |name: &str, more: Value| Step::Bytes(dify::event_of("c", "t", name, &more));
    let started = || event("workflow_started", json!({"data": {"id": "r"}}));
    let finished = || event("workflow_finished", json!({"data": {"status": "succeeded", "outputs": {}}}));
    let ended = || event("message_end", json!({"metadata": {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}}));
    let text = || event("message", json!({"answer": "hi"}));
    for (last, quick, usage) in [
        (vec![ended(), finished(), Step::Stall], true, true),
        (vec![finished(), ended(), Step::Stall], true, true),
        (vec![ended(), Step::Stall], false, true),
        (vec![finished(), Step::Stall], false, false),
        (vec![finished(), Step::Cut], true, false),
    ] {
        fake.script(Script::steps([started(), text()].into_iter().chain(last)));
        let begin = Instant::now();
        let (read, end) = ask(&model).await;
        assert_eq!((read.text.as_str(), end.unwrap(), read.usage.is_some()), ("hi", FinishReason::Stop, usage));
        let took = begin.elapsed();
        assert_eq!(took < LINGER, quick, "{took:?}");
        assert!(took < BELOW_IDLE_TIMEOUT, "{took:?}");
    }
    fake.script(Script::steps([text(), event("message_replace", json!({"answer": "[hidden]"})), ended()]));
    let (read, _) = ask(&model).await;
    assert_eq!((read.text.as_str(), read.replaced), ("[hidden]", vec!["hi".to_owned()]));
}
