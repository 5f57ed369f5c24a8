//! OpenAI Chat Completions, and how servers that speak it differ.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Names;
use crate::provider::Script;
use crate::provider::event::{Event, merged};
use crate::provider::fault::{Fault, Form};
use crate::provider::step::{Finish, Usage};

pub(super) fn chunk(names: &Names, more: &Value) -> Event {
    let Names { id, model, .. } = names;
    let base = json!({"id": format!("chatcmpl-{id}"), "object": "chat.completion.chunk", "created": 1_790_000_000,
        "model": model});
    Event::data(merged(base, more))
}

fn choice(names: &Names, delta: &Value, reason: Option<&str>) -> Event {
    let choices = json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
    chunk(names, &json!({"choices": choices, "usage": null}))
}

pub(super) fn begin(names: &Names) -> Event {
    choice(names, &json!({"role": "assistant", "content": ""}), None)
}

pub(super) fn delta(names: &Names, text: &str) -> Event {
    choice(names, &json!({"content": text}), None)
}

pub(super) fn reasoning(names: &Names, field: &str, text: &str) -> Event {
    choice(names, &json!({field: text}), None)
}

/// `usage` as a chunk carries it.
pub(in crate::provider) fn usage(usage: Usage) -> Value {
    let Usage { input, cached, output, .. } = usage;
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input.saturating_add(output),
        "prompt_tokens_details": {"cached_tokens": cached}, "completion_tokens_details": {"reasoning_tokens": 0}})
}

pub(super) fn finish(names: &Names, finish: &Finish) -> Vec<Event> {
    let delta = finish.text.as_ref().map_or(json!({}), |text| json!({"content": text}));
    let mut events = vec![choice(names, &delta, Some(finish.reason.as_deref().unwrap_or("stop")))];
    if let Some(told) = finish.usage.filter(|_| names.wants_usage) {
        events.push(chunk(names, &json!({"choices": [], "usage": usage(told)})));
    }
    if !finish.unterminated {
        events.push(Event::data("[DONE]"));
    }
    events
}

/// The usual error type of the API for a status.
fn usual(status: u16) -> (&'static str, Option<&'static str>) {
    match status {
        404 => ("invalid_request_error", Some("model_not_found")),
        401 => ("invalid_request_error", Some("invalid_api_key")),
        400..=428 => ("invalid_request_error", None),
        429 => ("requests", Some("rate_limit_exceeded")),
        503 => ("service_unavailable_error", Some("server_is_overloaded")),
        _ => ("server_error", None),
    }
}

pub(super) fn fault(fault: &Fault) -> Value {
    let status = fault.status.unwrap_or(500);
    let quota = ("insufficient_quota", Some("insufficient_quota"));
    let (kind, code) = if fault.quota { quota } else { usual(status) };
    let (kind, message) = (fault.kind.as_deref().unwrap_or(kind), fault.message());
    let code = json!(fault.code.as_deref().or(code));
    match fault.form {
        Form::Nested => json!({"error": {"message": message, "type": kind, "param": null, "code": code}}),
        Form::NestedNumber => json!({"error": {"message": message, "type": kind, "param": null, "code": status}}),
        Form::Text => json!({"error": message}),
        Form::Flat => json!({"object": "error", "message": message, "type": kind, "param": null, "code": status}),
    }
}

pub(super) fn fault_events(told: &Fault) -> Vec<Event> {
    let mut events = vec![Event::data(fault(told))];
    if told.done {
        events.push(Event::data("[DONE]"));
    }
    events
}

fn worded(kind: &str, code: &str, message: &str) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// A refusal with a status, such as 429, `requests`, `rate_limit_exceeded`.
pub fn refusal(status: u16, kind: &str, code: &str, message: &str) -> Script {
    Script::json(status, &worded(kind, code, message))
}

/// A fault in the middle of a stream.
pub fn fault_event(kind: &str, code: &str, message: &str) -> Bytes {
    Event::data(worded(kind, code, message)).plain().into()
}

pub(super) fn whole_reply(text: &str) -> Value {
    json!({"id": "chatcmpl-whole", "object": "chat.completion", "created": 1_790_000_000, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "refusal": null},
            "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}})
}

/// A whole reply, as servers give that know no streams.
pub fn whole(text: &str) -> Script {
    Script::json(200, &whole_reply(text))
}
