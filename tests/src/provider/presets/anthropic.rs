//! Behaviours of Anthropic.

use serde_json::json;

use super::Preset;
use crate::provider::dialect::Dialect;
use crate::provider::fault::Fault;
use crate::provider::script::Script;
use crate::provider::step::{Finish, Step, Usage};

fn begun() -> Script {
    Script::begun(["So far"]).only(Dialect::Anthropic)
}

fn ended(reason: &str) -> Script {
    let finish = Finish { usage: Some(Usage::new(10, 1)), reason: Some(reason.to_owned()), ..Finish::default() };
    begun().then(Step::FinishWith(finish))
}

fn fault(kind: &str) -> Step {
    Step::Fault(Fault { kind: Some(kind.to_owned()), ..Fault::default() })
}

pub(super) const PRESETS: &[Preset] = &[
    ("anthropic_max_tokens", "cut by the token limit", || ended("max_tokens")),
    ("anthropic_refusal", "stopped for safety", || ended("refusal")),
    ("anthropic_tool_use", "asks for a tool", || ended("tool_use")),
    ("anthropic_pause_turn", "a long turn, to be continued", || ended("pause_turn")),
    ("anthropic_context_full", "the context window is full", || ended("model_context_window_exceeded")),
    ("anthropic_no_stop", "the stop reason, then the clean end without `message_stop`", || {
        let finish = Finish { usage: Some(Usage::new(10, 1)), unterminated: true, ..Finish::default() };
        begun().then(Step::FinishWith(finish))
    }),
    ("anthropic_overloaded_early", "`overloaded_error` in the stream before any text", || {
        Script::steps([Step::Begin, fault("overloaded_error")]).only(Dialect::Anthropic)
    }),
    ("anthropic_api_error_mid", "`api_error` in the stream after some text", || begun().then(fault("api_error"))),
    ("anthropic_cache_written", "part of the input was read from the cache, part was written to it", || {
        let usage = Usage { input: 100, cached: 60, cache_written: 30, output: 1 };
        let finish = Finish { usage: Some(usage), ..Finish::default() };
        Script::steps([Step::BeginWith(usage), Step::Delta("Cached".into()), Step::FinishWith(finish)])
            .only(Dialect::Anthropic)
    }),
    ("anthropic_input_at_start", "only `message_start` tells the input, only `message_delta` the output", || {
        let usage = Usage { input: 100, cached: 60, cache_written: 0, output: 1 };
        let event = |body: serde_json::Value| Step::Event {
            name: body.get("type").and_then(serde_json::Value::as_str).map(str::to_owned),
            data: Some(body),
        };
        Script::steps([
            Step::BeginWith(usage),
            Step::Delta("Cached".into()),
            event(json!({"type": "content_block_stop", "index": 0})),
            event(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
                "usage": {"output_tokens": 7}})),
            event(json!({"type": "message_stop"})),
        ])
        .only(Dialect::Anthropic)
    }),
];
