//! OpenAI Chat Completions.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Names, data};
use crate::provider::Script;

fn chunk(names: &Names, choices: &Value, usage: &Value) -> String {
    let Names { id, model, .. } = names;
    data(&json!({"id": format!("chatcmpl-{id}"), "object": "chat.completion.chunk", "created": 1_790_000_000,
        "model": model, "choices": choices, "usage": usage}))
}

pub(super) fn begin(names: &Names) -> Bytes {
    let choice = json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]);
    chunk(names, &choice, &Value::Null).into()
}

pub(super) fn delta(names: &Names, text: &str) -> Bytes {
    chunk(names, &json!([{"index": 0, "delta": {"content": text}, "finish_reason": null}]), &Value::Null).into()
}

pub(super) fn finish(names: &Names, usage: Option<(u64, u64)>, reason: &str) -> Bytes {
    let mut text = chunk(names, &json!([{"index": 0, "delta": {}, "finish_reason": reason}]), &Value::Null);
    if let Some((input, output)) = usage.filter(|_| names.wants_usage) {
        let usage = json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}});
        text += &chunk(names, &json!([]), &usage);
    }
    text += "data: [DONE]\n\n";
    text.into()
}

fn fault(kind: &str, code: &str, message: &str) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// A refusal with a status, such as 429, `requests`, `rate_limit_exceeded`.
pub fn refusal(status: u16, kind: &str, code: &str, message: &str) -> Script {
    Script::json(status, &fault(kind, code, message))
}

/// A fault in the middle of a stream.
pub fn fault_event(kind: &str, code: &str, message: &str) -> Bytes {
    data(&fault(kind, code, message)).into()
}

/// A whole reply, as servers give that know no streams.
pub fn whole(text: &str) -> Script {
    Script::json(
        200,
        &json!({"id": "chatcmpl-whole", "object": "chat.completion", "created": 1_790_000_000, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "refusal": null},
                "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}}),
    )
}
