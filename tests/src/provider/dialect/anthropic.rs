//! Anthropic Messages.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Names;
use crate::provider::Script;

fn event(body: &Value) -> String {
    let name = body.get("type").and_then(Value::as_str).unwrap_or_default();
    format!("event: {name}\ndata: {body}\n\n")
}

pub(super) fn begin(names: &Names) -> Bytes {
    let Names { id, model, .. } = names;
    let start = json!({"type": "message_start", "message": {"id": format!("msg_{id}"), "type": "message",
        "role": "assistant", "model": model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}}});
    let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    format!("{}{}{}", event(&start), event(&block), event(&json!({"type": "ping"}))).into()
}

pub(super) fn delta(text: &str) -> Bytes {
    let delta = json!({"type": "text_delta", "text": text});
    event(&json!({"type": "content_block_delta", "index": 0, "delta": delta})).into()
}

pub(super) fn finish(usage: Option<(u64, u64)>, reason: &str) -> Bytes {
    let mut end = json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}});
    if let (Some((input, output)), Some(end)) = (usage, end.as_object_mut()) {
        end.insert("usage".to_owned(), json!({"input_tokens": input, "output_tokens": output}));
    }
    let block = json!({"type": "content_block_stop", "index": 0});
    format!("{}{}{}", event(&block), event(&end), event(&json!({"type": "message_stop"}))).into()
}

fn fault(kind: &str, message: &str, error_code: Option<&str>) -> Value {
    let mut error = json!({"type": kind, "message": message});
    if let (Some(code), Some(error)) = (error_code, error.as_object_mut()) {
        error.insert("details".to_owned(), json!({"error_code": code}));
    }
    json!({"type": "error", "error": error, "request_id": "req_double"})
}

/// A refusal with a status, such as 529, `overloaded_error`.
pub fn refusal(status: u16, kind: &str, message: &str, error_code: Option<&str>) -> Script {
    Script::json(status, &fault(kind, message, error_code))
}

/// A fault in the middle of a stream.
pub fn fault_event(kind: &str, message: &str) -> Bytes {
    event(&fault(kind, message, None)).into()
}

/// A whole reply.
pub fn whole(text: &str) -> Script {
    Script::json(
        200,
        &json!({"id": "msg_whole", "type": "message", "role": "assistant", "model": "m",
            "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"input_tokens": 10, "output_tokens": 1}}),
    )
}
