//! Behaviours of OpenAI and of the servers that speak its protocol.

use serde_json::{Value, json};

use super::Preset;
use crate::provider::dialect::{Dialect, openai};
use crate::provider::event::merged;
use crate::provider::fault::{Fault, Form};
use crate::provider::script::Script;
use crate::provider::step::{Finish, Step, Usage};

fn script(steps: impl IntoIterator<Item = Step>) -> Script {
    Script::steps(steps).only(Dialect::OpenAi)
}

fn begun() -> Script {
    Script::begun(["So far"]).only(Dialect::OpenAi)
}

fn delta(delta: &Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn ended(reason: &str) -> Script {
    let finish = Finish { usage: Some(Usage::new(10, 1)), reason: Some(reason.to_owned()), ..Finish::default() };
    begun().then(Step::FinishWith(finish))
}

fn fault(form: Form, done: bool) -> Script {
    begun().then(Step::Fault(Fault { form, done, ..Fault::default() }))
}

/// Azure sends filter results in chunks of their own.
fn azure(reason: &str) -> Script {
    let clean = json!({"hate": {"filtered": false, "severity": "safe"}});
    let first = json!({"id": "", "model": "", "created": 0, "object": "", "choices": [],
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": clean}]});
    let annotation = json!({"id": "", "model": "", "created": 0, "object": "", "choices": [{"index": 0,
        "finish_reason": null, "content_filter_results": clean,
        "content_filter_offsets": {"check_offset": 0, "start_offset": 0, "end_offset": 6}}]});
    let finish = Finish { usage: Some(Usage::new(10, 1)), reason: Some(reason.to_owned()), ..Finish::default() };
    script([
        Step::Chunk(first),
        Step::Begin,
        Step::Delta("So far".into()),
        Step::Chunk(annotation),
        Step::FinishWith(finish),
    ])
}

fn vllm_usage() -> Script {
    let chunk = |text: &str, output| {
        let usage = json!({"usage": openai::usage(Usage::new(10, output))});
        Step::Chunk(merged(delta(&json!({"content": text})), &usage))
    };
    script([Step::Begin, chunk("One ", 1), chunk("two", 2), Step::Finish { input: 10, output: 2 }])
}

pub(super) const PRESETS: &[Preset] = &[
    ("openai_length", "cut by the token limit", || ended("length")),
    ("openai_content_filter", "ended by the content filter", || ended("content_filter")),
    ("openai_tool_calls", "asks for a tool", || ended("tool_calls")),
    ("openai_unknown_reason", "an unknown finish reason", || ended("eos_token")),
    ("openai_refusal", "refusal in the field `refusal`", || {
        script([
            Step::Begin,
            Step::Chunk(delta(&json!({"refusal": "I can't help with that."}))),
            Step::Finish { input: 10, output: 6 },
        ])
    }),
    ("openai_done_without_reason", "`[DONE]` without a finish reason", || {
        begun().then(Step::Event { name: None, data: Some(json!("[DONE]")) })
    }),
    ("openai_reason_without_done", "a finish reason, then the clean end without `[DONE]`", || {
        let finish = Finish { usage: Some(Usage::new(10, 1)), unterminated: true, ..Finish::default() };
        begun().then(Step::FinishWith(finish))
    }),
    ("openai_fault_done", "a fault in the stream, then `[DONE]`", || fault(Form::Nested, true)),
    ("openai_fault_text", "a fault in the stream that is only a text", || fault(Form::Text, false)),
    ("openai_fault_flat", "a fault in the stream in the old flat form of vLLM", || fault(Form::Flat, false)),
    ("vllm_fault", "a fault in the stream with a number for its code, then `[DONE]`", || {
        fault(Form::NestedNumber, true)
    }),
    ("vllm_usage_everywhere", "vLLM: the usage so far on every chunk", vllm_usage),
    ("vllm_finish_with_text", "vLLM: the chunk with the finish reason has text as well", || {
        let usage = Some(Usage::new(10, 2));
        let finish = Finish { usage, text: Some(" and the rest".to_owned()), ..Finish::default() };
        begun().then(Step::FinishWith(finish))
    }),
    ("azure_filter_chunks", "Azure: filter results in chunks of their own, before and between the text", || {
        azure("stop")
    }),
    ("azure_content_filter", "Azure: the same, and the filter ends the answer", || azure("content_filter")),
    ("ollama_first_text", "Ollama: the first chunk has the role and text", || {
        script([
            Step::Chunk(delta(&json!({"role": "assistant", "content": "First "}))),
            Step::Delta("and second".into()),
            Step::Finish { input: 10, output: 2 },
        ])
    }),
    (
        "ollama_silent_truncation",
        "Ollama fails: an empty chunk, then the clean end without reason and `[DONE]`",
        || begun().then(Step::Chunk(delta(&json!({"role": "assistant", "content": ""})))),
    ),
    ("reasoning_content", "reasoning in the field `reasoning_content`", || {
        let field = Some("reasoning_content".to_owned());
        script([
            Step::Begin,
            Step::Reasoning { text: "Thinking.".into(), field },
            Step::Delta("Done".into()),
            Step::Finish { input: 10, output: 2 },
        ])
    }),
];
