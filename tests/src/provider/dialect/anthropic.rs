//! Anthropic Messages.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Names;
use crate::provider::Script;
use crate::provider::event::Event;
use crate::provider::fault::Fault;
use crate::provider::step::{Finish, Usage};

/// An event whose name stands in its data.
pub(super) fn event(body: &Value) -> Event {
    Event::named(body.get("type").and_then(Value::as_str).unwrap_or_default(), body)
}

/// The usage. `input_tokens` is without the tokens read from a cache or written to it.
fn tokens(usage: Usage) -> Value {
    let Usage { input, cached, cache_written, output } = usage;
    json!({"input_tokens": input.saturating_sub(cached).saturating_sub(cache_written),
        "cache_creation_input_tokens": cache_written, "cache_read_input_tokens": cached, "output_tokens": output})
}

pub(super) fn begin(names: &Names, usage: Usage) -> Vec<Event> {
    let Names { id, model, .. } = names;
    let start = json!({"type": "message_start", "message": {"id": format!("msg_{id}"), "type": "message",
        "role": "assistant", "model": model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": tokens(usage)}});
    vec![event(&start), block_start(0, "text"), event(&json!({"type": "ping"}))]
}

fn block_start(index: u32, kind: &str) -> Event {
    let block = match kind {
        "thinking" => json!({"type": "thinking", "thinking": "", "signature": ""}),
        _ => json!({"type": "text", "text": ""}),
    };
    event(&json!({"type": "content_block_start", "index": index, "content_block": block}))
}

fn block_delta(index: u32, delta: &Value) -> Event {
    event(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
}

fn block_stop(index: u32) -> Event {
    event(&json!({"type": "content_block_stop", "index": index}))
}

pub(super) fn delta(block: u32, text: &str) -> Event {
    block_delta(block, &json!({"type": "text_delta", "text": text}))
}

/// Ends the text block, sends a block of thoughts, and begins another text block.
pub(super) fn thoughts(block: u32, text: &str) -> Vec<Event> {
    let thoughts = block + 1;
    vec![
        block_stop(block),
        block_start(thoughts, "thinking"),
        block_delta(thoughts, &json!({"type": "thinking_delta", "thinking": text})),
        block_delta(thoughts, &json!({"type": "signature_delta", "signature": "c2ln"})),
        block_stop(thoughts),
        block_start(thoughts + 1, "text"),
    ]
}

pub(super) fn finish(block: u32, finish: &Finish) -> Vec<Event> {
    let reason = finish.reason.as_deref().unwrap_or("end_turn");
    let mut end = json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}});
    if let (Some(usage), Some(end)) = (finish.usage, end.as_object_mut()) {
        let plain = usage.cached == 0 && usage.cache_written == 0;
        let short = json!({"input_tokens": usage.input, "output_tokens": usage.output});
        end.insert("usage".to_owned(), if plain { short } else { tokens(usage) });
    }
    let mut events: Vec<Event> = finish.text.iter().map(|text| delta(block, text)).collect();
    events.extend([block_stop(block), event(&end)]);
    if !finish.unterminated {
        events.push(event(&json!({"type": "message_stop"})));
    }
    events
}

/// The usual error type of the API for a status.
fn usual(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

pub(super) fn fault(fault: &Fault) -> Value {
    let status = fault.status.unwrap_or(if fault.quota { 429 } else { 529 });
    let kind = fault.kind.as_deref().unwrap_or(usual(status));
    let quota = fault.quota.then_some("enforced_spend_limit_reached");
    worded(kind, fault.message(), fault.code.as_deref().or(quota))
}

fn worded(kind: &str, message: &str, error_code: Option<&str>) -> Value {
    let mut error = json!({"type": kind, "message": message});
    if let (Some(code), Some(error)) = (error_code, error.as_object_mut()) {
        error.insert("details".to_owned(), json!({"error_code": code}));
    }
    json!({"type": "error", "error": error, "request_id": "req_fake"})
}

/// A refusal with a status, such as 529, `overloaded_error`.
pub fn refusal(status: u16, kind: &str, message: &str, error_code: Option<&str>) -> Script {
    Script::json(status, &worded(kind, message, error_code))
}

/// A fault in the middle of a stream.
pub fn fault_event(kind: &str, message: &str) -> Bytes {
    event(&worded(kind, message, None)).plain().into()
}

pub(super) fn whole_reply(text: &str) -> Value {
    json!({"id": "msg_whole", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 10, "output_tokens": 1}})
}

/// A whole reply.
pub fn whole(text: &str) -> Script {
    Script::json(200, &whole_reply(text))
}
