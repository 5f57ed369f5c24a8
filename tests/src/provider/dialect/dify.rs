//! Dify chat messages.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Names, data};
use crate::provider::Script;

/// An event with the ids all events carry, and `more`.
fn event(names: &Names, name: &str, more: &Value) -> String {
    let Names { id, conversation, .. } = names;
    let mut event = json!({"event": name, "task_id": format!("task-{id}"), "id": format!("message-{id}"),
        "message_id": format!("message-{id}"), "conversation_id": conversation, "created_at": 1_790_000_000});
    if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
        event.extend(more.clone());
    }
    data(&event)
}

pub(super) fn delta(names: &Names, text: &str) -> Bytes {
    event(names, "message", &json!({"answer": text})).into()
}

pub(super) fn finish(names: &Names, usage: Option<(u64, u64)>) -> Bytes {
    let usage = usage.map(|(input, output)| {
        json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "total_price": "0.0001", "currency": "USD", "latency": 1.2})
    });
    let metadata = usage.map_or(json!({}), |usage| json!({"usage": usage, "retriever_resources": []}));
    event(names, "message_end", &json!({"metadata": metadata})).into()
}

/// Events by hand, for scripts that need their exact form: the ids are those of `conversation` and `task`.
pub fn event_of(conversation: &str, task: &str, name: &str, more: &Value) -> Bytes {
    let mut event = json!({"event": name, "task_id": task, "conversation_id": conversation, "message_id": "m"});
    if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
        event.extend(more.clone());
    }
    data(&event).into()
}

/// A refusal with a status, such as 404, `not_found`.
pub fn refusal(status: u16, code: &str, message: &str) -> Script {
    Script::json(status, &json!({"code": code, "message": message, "status": status}))
}

/// A fault in the middle of a stream.
pub fn fault_event(status: u16, code: &str, message: &str) -> Bytes {
    data(&json!({"event": "error", "conversation_id": "c", "message_id": "m", "created_at": 1, "status": status,
        "code": code, "message": message}))
    .into()
}

/// A whole reply, as to a request for one.
pub fn whole(text: &str) -> Script {
    Script::json(
        200,
        &json!({"event": "message", "task_id": "t", "id": "m", "message_id": "m", "conversation_id": "c", "mode": "chat",
            "answer": text, "metadata": {"usage": {"prompt_tokens": 10, "completion_tokens": 1}}, "created_at": 1}),
    )
}
