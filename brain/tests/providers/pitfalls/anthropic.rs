//! Anthropic Messages: how answers end, and how they fail.

use chatbox_brain::llm::{ErrorClass, Remedy};
use chatbox_brain::usage::FinishReason;
use chatbox_brain::usage::TokenUsage;
use chatbox_tests::provider::dialect::anthropic::{fault_event, refusal};
use chatbox_tests::provider::{FakeProvider, Script, Step};
use serde_json::{Value, json};

use super::wire::{Refused, ask_once, assert_refusals, body, end, failed, stream, text};
use crate::support::{ask, model};

fn start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "content": [], "stop_reason": null, "usage":
        {"input_tokens": 25, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 1}}})
}

fn stopped(delta: Value) -> Value {
    json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 15}})
}

#[tokio::test]
async fn anthropic_stop_reasons() {
    let fake = FakeProvider::start().await.unwrap();
    let details = json!({"type": "refusal", "category": "x", "explanation": "y"});
    for (delta, expected) in [
        (json!({"stop_reason": "end_turn", "stop_sequence": null}), Ok(FinishReason::Stop)),
        (json!({"stop_reason": "max_tokens"}), Ok(FinishReason::Length)),
        (json!({"stop_reason": "stop_sequence", "stop_sequence": "END"}), Ok(FinishReason::Stop)),
        (json!({"stop_reason": "tool_use"}), Err(ErrorClass::Protocol)),
        (json!({"stop_reason": "pause_turn"}), Ok(FinishReason::Interrupted)),
        (json!({"stop_reason": "refusal", "stop_details": details}), Ok(FinishReason::ContentFilter)),
        (json!({"stop_reason": "model_context_window_exceeded"}), Ok(FinishReason::Length)),
        (json!({"stop_reason": "something_new"}), Ok(FinishReason::Stop)),
        (json!({}), Ok(FinishReason::Stop)),
    ] {
        let events = [start(), text("anthropic", "hi"), stopped(delta.clone()), end("anthropic")];
        let (read, end) = ask_once(&fake, "anthropic", body(stream(&events))).await;
        assert_eq!((read.text.as_str(), end.map_err(|error| error.class)), ("hi", expected), "{delta}");
    }
}

#[tokio::test]
async fn anthropic_stop_is_the_only_end_and_usage_is_a_total() {
    let fake = FakeProvider::start().await.unwrap();
    let events = [
        json!({"type": "ping"}),
        start(),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "hm"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "x"}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "compaction_delta", "content": "x"}}),
        json!({"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": "a"}}),
        text("anthropic", "b"),
        json!({"type": "news", "index": 0}),
        stopped(json!({"stop_reason": "end_turn"})),
        json!({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 18, "cache_read_input_tokens": 4}}),
        end("anthropic"),
        json!({"type": "ping"}),
    ];
    let (read, end) = ask_once(&fake, "anthropic", body(stream(&events))).await;
    assert_eq!((read.text.as_str(), end.unwrap()), ("ab", FinishReason::Stop), "text blocks only, in order");
    assert_eq!(read.input, Some((30, 2)), "message_start: all that went in, and what was cached of it");
    let usage = TokenUsage { input: 32, cached: 4, output: 18, estimated: false };
    assert_eq!(read.usage, Some(usage), "message_delta is a total, and what it leaves out stays");

    let (read, end) = ask_once(&fake, "anthropic", body(stream(&events[..10]))).await;
    assert_eq!(end.unwrap_err().class, ErrorClass::Truncated, "no message_stop");
    assert_eq!(read.input, Some((30, 2)), "known although the stream broke");
    let (read, end) = ask_once(&fake, "anthropic", body(stream(&events[..8]))).await;
    assert_eq!(
        (end.unwrap_err().class, read.usage),
        (ErrorClass::Truncated, None),
        "the answer's tokens are not known"
    );
}

#[tokio::test]
async fn anthropic_errors_before_the_stream() {
    let invalid = "invalid_request_error";
    let spend = "This workspace's spend limit is reached";
    let rows: Vec<Refused> = vec![
        ("400", refusal(400, invalid, "x", None), ErrorClass::Rejected, false),
        ("400 credit", refusal(400, invalid, "Your credit balance is too low", None), ErrorClass::Quota, false),
        (
            "400 spend limit",
            refusal(400, invalid, spend, Some("enforced_spend_limit_reached")),
            ErrorClass::Quota,
            false,
        ),
        ("401", refusal(401, "authentication_error", "x", None), ErrorClass::Auth, false),
        ("402", refusal(402, "billing_error", "x", None), ErrorClass::Quota, false),
        ("403", refusal(403, "permission_error", "x", None), ErrorClass::Auth, false),
        ("404", refusal(404, "not_found_error", "x", None), ErrorClass::NotFound, false),
        ("409", refusal(409, "conflict_error", "x", None), ErrorClass::Overloaded, true),
        ("413", refusal(413, "request_too_large", "x", None), ErrorClass::Rejected, false),
        ("413 of the edge", Script::body(413, "text/html", "<html>"), ErrorClass::Rejected, false),
        ("429", refusal(429, "rate_limit_error", "x", None), ErrorClass::RateLimited, true),
        (
            "429 enforced_spend_limit_reached",
            refusal(429, "rate_limit_error", "x", Some("enforced_spend_limit_reached")),
            ErrorClass::Quota,
            false,
        ),
        (
            "429 contract_spend_limit_reached",
            refusal(429, "rate_limit_error", "x", Some("contract_spend_limit_reached")),
            ErrorClass::Quota,
            false,
        ),
        (
            "429 ramp_limit_exceeded",
            refusal(429, "rate_limit_error", "x", Some("ramp_limit_exceeded")),
            ErrorClass::RateLimited,
            true,
        ),
        ("500", refusal(500, "api_error", "x", None), ErrorClass::Server, true),
        ("504", refusal(504, "timeout_error", "x", None), ErrorClass::Timeout, true),
        ("529", refusal(529, "overloaded_error", "x", None), ErrorClass::Overloaded, true),
        ("529 of the edge", Script::body(529, "text/plain", ""), ErrorClass::Overloaded, true),
        ("an unknown type", refusal(500, "new_error", "x", None), ErrorClass::Server, true),
    ];
    assert_refusals("anthropic", rows).await;
    let fake = FakeProvider::start().await.unwrap();
    let capped = refusal(429, "rate_limit_error", "You have reached your monthly spend cap", None);
    let error = ask_once(&fake, "anthropic", capped).await.1.unwrap_err();
    assert_eq!((error.class, error.retryable()), (ErrorClass::Quota, false), "429 tier cap, without retry-after");
}

#[tokio::test]
async fn anthropic_errors_with_a_remedy() {
    let fake = FakeProvider::start().await.unwrap();
    let refused = || refusal(400, "invalid_request_error", "temperature: not supported by this model", None);
    let with = model("anthropic", &fake.url(), json!({"temperature": 0.5, "max_retries": 0}));
    fake.script(refused());
    ask(&with).await.1.unwrap();
    fake.script(refused());
    fake.script(refused());
    assert_eq!(ask(&with).await.1.unwrap_err().class, ErrorClass::Rejected, "400 temperature: once and no more");
    let sent: Vec<_> = fake.journal().iter().map(|call| call.body.get("temperature").cloned()).collect();
    let half = Some(json!(0.5));
    assert_eq!(sent, [half.clone(), None, half, None], "400 temperature: what is called again");
    let error = ask_once(&fake, "anthropic", refused()).await.1.unwrap_err();
    assert_eq!(error.remedy(), None, "400 temperature: none was sent");
    let long = refusal(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", None);
    fake.script(long.clone());
    let error = ask_once(&fake, "anthropic", long).await.1.unwrap_err();
    assert_eq!((error.class, error.remedy()), (ErrorClass::ContextLength, Some(Remedy::LessHistory)), "400 too long");
}

#[tokio::test]
async fn anthropic_errors_within_the_stream_go_by_their_type() {
    let fake = FakeProvider::start().await.unwrap();
    for (kind, class) in [
        ("overloaded_error", ErrorClass::Overloaded),
        ("api_error", ErrorClass::Server),
        ("timeout_error", ErrorClass::Timeout),
        ("rate_limit_error", ErrorClass::RateLimited),
        ("invalid_request_error", ErrorClass::Rejected),
        ("authentication_error", ErrorClass::Auth),
        ("a_new_error", ErrorClass::Server),
    ] {
        let script = Script::steps([
            Step::Bytes(stream(&[start(), text("anthropic", "so far")]).into()),
            Step::Bytes(fault_event(kind, "x")),
            Step::Stall,
        ]);
        assert_eq!(failed(&fake, "anthropic", script, "so far", kind).await, class, "{kind}");
    }
}
