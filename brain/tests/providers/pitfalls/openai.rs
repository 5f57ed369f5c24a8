//! OpenAI Chat Completions: how answers end, and how they fail.

use chatbox_brain::llm::ErrorClass;
use chatbox_brain::usage::FinishReason;
use chatbox_brain::usage::TokenUsage;
use chatbox_tests::provider::dialect::openai::{fault_event, refusal};
use chatbox_tests::provider::{FakeProvider, Script};
use serde_json::{Value, json};

use super::wire::{Refused, ask_once, assert_refusals, body, failed, stream, text};
use crate::support::{ask, model};

fn choice(choice: Value) -> Value {
    json!({"object": "chat.completion.chunk", "choices": [choice]})
}

#[tokio::test]
async fn openai_finish_reasons() {
    let fake = FakeProvider::start().await.unwrap();
    for (reason, expected) in [
        ("stop", Ok(FinishReason::Stop)),
        ("length", Ok(FinishReason::Length)),
        ("content_filter", Ok(FinishReason::ContentFilter)),
        ("tool_calls", Err(ErrorClass::Protocol)),
        ("function_call", Err(ErrorClass::Protocol)),
        ("eos_token", Ok(FinishReason::Stop)),
    ] {
        for ends in ["data: [DONE]\n\n", ""] {
            let events = [text("openai", "hi"), choice(json!({"delta": {}, "finish_reason": reason}))];
            let (read, end) = ask_once(&fake, "openai", body(stream(&events) + ends)).await;
            assert_eq!((read.text.as_str(), end.map_err(|error| error.class)), ("hi", expected), "{reason} {ends:?}");
        }
    }
    let null =
        stream(&[text("openai", "hi"), choice(json!({"delta": {}, "finish_reason": null}))]) + "data: [DONE]\n\n";
    assert_eq!(failed(&fake, "openai", body(null), "hi", "null to the end").await, ErrorClass::Truncated);
}

#[tokio::test]
async fn openai_finish_chunks_may_hold_text_refusals_and_nothing() {
    let fake = FakeProvider::start().await.unwrap();
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}});
    let events = [
        json!({"choices": [], "prompt_filter_results": []}),
        choice(json!({"delta": {"role": "assistant", "content": "a"}})),
        choice(json!({"delta": {"content": null, "tool_calls": []}})),
        choice(json!({"delta": {"content": "b"}, "finish_reason": "stop"})),
        json!({"choices": [], "usage": usage}),
    ];
    let (read, end) = ask_once(&fake, "openai", body(stream(&events) + "data: [DONE]\n\n")).await;
    assert_eq!((read.text.as_str(), end.unwrap()), ("ab", FinishReason::Stop), "text with the reason");
    let usage = TokenUsage { input: 9, cached: 4, output: 2, estimated: false };
    assert_eq!(read.usage, Some(usage), "usage behind the reason, with its cached part");
    let events = [choice(json!({"delta": {"refusal": "No."}})), choice(json!({"delta": {}, "finish_reason": "stop"}))];
    let (read, end) = ask_once(&fake, "openai", body(stream(&events))).await;
    assert_eq!((read.text.as_str(), end.unwrap()), ("No.", FinishReason::ContentFilter), "a refusal");
}

#[tokio::test]
async fn openai_errors_before_the_stream() {
    let invalid = "invalid_request_error";
    let rows: Vec<Refused> = vec![
        ("400 invalid_request_error", refusal(400, invalid, "", "x"), ErrorClass::Rejected, false),
        ("400 invalid_value", refusal(400, invalid, "invalid_value", "x"), ErrorClass::Rejected, false),
        ("400 unsupported_parameter", refusal(400, invalid, "unsupported_parameter", "x"), ErrorClass::Rejected, false),
        ("400 unsupported_value", refusal(400, invalid, "unsupported_value", "x"), ErrorClass::Rejected, false),
        ("401 invalid_api_key", refusal(401, invalid, "invalid_api_key", "x"), ErrorClass::Auth, false),
        ("403 region", refusal(403, "", "unsupported_country_region_territory", "x"), ErrorClass::Auth, false),
        ("404 model_not_found", refusal(404, invalid, "model_not_found", "x"), ErrorClass::NotFound, false),
        ("408", refusal(408, "", "", "x"), ErrorClass::Timeout, true),
        ("409", refusal(409, "", "", "x"), ErrorClass::Overloaded, true),
        ("413", refusal(413, "", "", "x"), ErrorClass::Rejected, false),
        ("415", refusal(415, "", "", "x"), ErrorClass::Rejected, false),
        ("422", refusal(422, "", "", "x"), ErrorClass::Rejected, false),
        ("429 requests", refusal(429, "requests", "rate_limit_exceeded", "x"), ErrorClass::RateLimited, true),
        ("429 tokens", refusal(429, "tokens", "rate_limit_exceeded", "x"), ErrorClass::RateLimited, true),
        ("429 slow_down", refusal(429, "rate_limit_error", "slow_down", "x"), ErrorClass::RateLimited, true),
        ("429 unknown", refusal(429, "", "", "x"), ErrorClass::RateLimited, true),
        ("429 quota", refusal(429, "insufficient_quota", "insufficient_quota", "x"), ErrorClass::Quota, false),
        ("429 credit", refusal(429, "insufficient_quota", "credit_balance_exhausted", "x"), ErrorClass::Quota, false),
        ("429 spend limit", refusal(429, "", "project_spend_limit_reached", "x"), ErrorClass::Quota, false),
        ("500 server_error", refusal(500, "server_error", "", "x"), ErrorClass::Server, true),
        (
            "503 server_is_overloaded",
            refusal(503, "service_unavailable_error", "server_is_overloaded", "x"),
            ErrorClass::Overloaded,
            true,
        ),
        ("503 slow_down", refusal(503, "", "slow_down", "x"), ErrorClass::RateLimited, true),
        ("502 of a proxy", Script::body(502, "text/html", "<html>"), ErrorClass::Server, true),
        ("504 of a proxy", Script::body(504, "text/html", "<html>"), ErrorClass::Timeout, true),
        ("520 of a proxy", Script::body(520, "text/plain", ""), ErrorClass::Server, true),
        ("524 of a proxy", Script::body(524, "text/plain", ""), ErrorClass::Timeout, true),
        ("a string", Script::json(500, &json!({"error": "x"})), ErrorClass::Server, true),
        (
            "flat",
            Script::json(400, &json!({"object": "error", "message": "x", "code": 400})),
            ErrorClass::Rejected,
            false,
        ),
        ("code null", Script::json(500, &json!({"error": {"message": "x", "code": null}})), ErrorClass::Server, true),
    ];
    assert_refusals("openai", rows).await;
}

#[tokio::test]
async fn openai_errors_of_length_ask_for_less_history() {
    let fake = FakeProvider::start().await.unwrap();
    for script in [
        refusal(400, "invalid_request_error", "context_length_exceeded", "x"),
        refusal(400, "", "", "This model's maximum context length is 8192 tokens."),
    ] {
        let before = fake.journal().len();
        fake.script(script.clone());
        let error = ask_once(&fake, "openai", script).await.1.unwrap_err();
        let turns = |call: &chatbox_tests::provider::Call| call.body["messages"].as_array().map(Vec::len);
        let sent: Vec<_> = fake.journal()[before..].iter().map(turns).collect();
        assert_eq!(sent, [Some(4), Some(2)], "once more, with the instructions and the question alone");
        let remedy = Some(chatbox_brain::llm::Remedy::LessHistory);
        assert_eq!((error.class, error.remedy(), error.retryable()), (ErrorClass::ContextLength, remedy, false));
    }
}

#[tokio::test]
async fn openai_errors_about_sampling_are_called_again_without_it() {
    let fake = FakeProvider::start().await.unwrap();
    let fault = |code: &str, param: &str| {
        let error = json!({"message": "x", "type": "invalid_request_error", "param": param, "code": code});
        Script::json(400, &json!({"error": error}))
    };
    let with = model("openai", &fake.url(), json!({"temperature": 0.5, "max_retries": 0}));
    for (code, param, again) in [
        ("unsupported_value", "temperature", true),
        ("unsupported_parameter", "temperature", true),
        ("unsupported_parameter", "top_p", true),
        ("unsupported_parameter", "max_tokens", false),
        ("invalid_value", "temperature", false),
    ] {
        let before = fake.journal().len();
        fake.script(fault(code, param));
        let end = ask(&with).await.1;
        assert_eq!(
            end.map_err(|error| error.class),
            if again { Ok(FinishReason::Stop) } else { Err(ErrorClass::Rejected) }
        );
        let sent: Vec<_> =
            fake.journal().split_off(before).iter().map(|call| call.body.get("temperature").cloned()).collect();
        let expected: &[_] = if again { &[Some(json!(0.5)), None] } else { &[Some(json!(0.5))] };
        assert_eq!(sent, expected, "{code} {param}");
    }
    let without = model("openai", &fake.url(), json!({}));
    let before = fake.journal().len();
    fake.script(fault("unsupported_value", "temperature"));
    let error = ask(&without).await.1.unwrap_err();
    assert_eq!((error.remedy(), fake.journal().len() - before), (None, 1), "nothing to leave out");
}

#[tokio::test]
async fn openai_errors_within_the_stream() {
    let fake = FakeProvider::start().await.unwrap();
    for (row, fault, class) in [
        ("server_error", fault_event("server_error", "", "x"), ErrorClass::Server),
        ("quota", fault_event("insufficient_quota", "insufficient_quota", "x"), ErrorClass::Quota),
        ("rate limit", fault_event("tokens", "rate_limit_exceeded", "x"), ErrorClass::RateLimited),
        ("overloaded", fault_event("service_unavailable_error", "server_is_overloaded", "x"), ErrorClass::Overloaded),
        ("filter", fault_event("", "content_filter", "x"), ErrorClass::ContentFiltered),
        ("too long", fault_event("invalid_request_error", "context_length_exceeded", "x"), ErrorClass::ContextLength),
        ("unknown", fault_event("new_error", "new_code", "x"), ErrorClass::Server),
        ("a string", "data: {\"error\":\"text\"}\n\n".into(), ErrorClass::Server),
        ("flat", "data: {\"object\":\"error\",\"message\":\"x\",\"code\":400}\n\n".into(), ErrorClass::Rejected),
    ] {
        for done in ["data: [DONE]\n\n", ""] {
            let stream = [stream(&[text("openai", "so far")]).as_bytes(), &fault, done.as_bytes()].concat();
            assert_eq!(failed(&fake, "openai", body(stream), "so far", row).await, class, "{row} {done:?}");
        }
    }
}
