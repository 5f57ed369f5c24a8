//! Dify chat messages.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Names;
use crate::provider::Script;
use crate::provider::event::{Event, merged};
use crate::provider::fault::Fault;
use crate::provider::step::{Finish, Usage};

/// An event with the ids all events carry, and `more`.
pub(super) fn event(names: &Names, name: &str, more: &Value) -> Event {
    let Names { id, conversation, .. } = names;
    let ids = json!({"event": name, "task_id": names.task(), "id": format!("message-{id}"),
        "message_id": format!("message-{id}"), "conversation_id": conversation, "created_at": 1_790_000_000});
    Event::data(merged(ids, more))
}

pub(super) fn finish(names: &Names, finish: &Finish) -> Vec<Event> {
    let usage = finish.usage.map(|Usage { input, output, .. }| {
        json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input.saturating_add(output),
            "total_price": "0.0001", "currency": "USD", "latency": 1.2})
    });
    let metadata = usage.map_or(json!({}), |usage| json!({"usage": usage, "retriever_resources": []}));
    let mut events: Vec<Event> = finish.text.iter().map(|text| names.delta(text)).collect();
    if !finish.unterminated {
        events.push(event(names, "message_end", &json!({"metadata": metadata})));
    }
    events
}

/// An event with these ids, for scripts that need its exact form.
pub fn event_of(conversation: &str, task: &str, name: &str, more: &Value) -> Bytes {
    let ids = json!({"event": name, "task_id": task, "conversation_id": conversation, "message_id": "m"});
    Event::data(merged(ids, more)).plain().into()
}

/// The usual error type of the API for a status.
fn usual(status: u16) -> &'static str {
    match status {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        413 => "file_too_large",
        415 => "unsupported_file_type",
        429 => "too_many_requests",
        400..=499 => "invalid_param",
        _ => "internal_server_error",
    }
}

pub(super) fn fault(fault: &Fault) -> Value {
    let status = fault.status.unwrap_or(400);
    // Dify reports every error of the model under this code.
    let usual = match fault.status {
        Some(429) if fault.quota => "rate_limit_error",
        _ if fault.quota => "provider_quota_exceeded",
        None => "completion_request_error",
        Some(status) => usual(status),
    };
    let code = fault.code.as_deref().or(fault.kind.as_deref()).unwrap_or(usual);
    json!({"code": code, "message": fault.message(), "status": status})
}

/// A refusal with a status, such as 404, `not_found`.
pub fn refusal(status: u16, code: &str, message: &str) -> Script {
    Script::json(status, &json!({"code": code, "message": message, "status": status}))
}

/// A fault in the middle of a stream.
pub fn fault_event(status: u16, code: &str, message: &str) -> Bytes {
    Event::data(json!({"event": "error", "conversation_id": "c", "message_id": "m", "created_at": 1, "status": status,
        "code": code, "message": message}))
    .plain()
    .into()
}

pub(super) fn whole_reply(text: &str) -> Value {
    json!({"event": "message", "task_id": "t", "id": "m", "message_id": "m", "conversation_id": "c", "mode": "chat",
        "answer": text, "metadata": {"usage": {"prompt_tokens": 10, "completion_tokens": 1}}, "created_at": 1})
}

/// A whole reply, as to a request for one.
pub fn whole(text: &str) -> Script {
    Script::json(200, &whole_reply(text))
}
