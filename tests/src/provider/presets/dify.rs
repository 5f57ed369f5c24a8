//! Behaviours of Dify's kinds of apps and of its builds.

use std::time::Duration;

use serde_json::{Value, json};

use super::Preset;
use crate::provider::dialect::Dialect;
use crate::provider::fault::Fault;
use crate::provider::format::SseFormat;
use crate::provider::script::Script;
use crate::provider::step::Step;

fn script(steps: impl IntoIterator<Item = Step>) -> Script {
    Script::steps(steps).only(Dialect::Dify)
}

fn event(name: &str, with: Value) -> Step {
    Step::Dify { event: name.to_owned(), with }
}

fn text(text: &str) -> Step {
    event("message", json!({"answer": text}))
}

fn agent_text(text: &str) -> Step {
    event("agent_message", json!({"answer": text}))
}

fn thought(thought: &str, observation: &str) -> Step {
    event(
        "agent_thought",
        json!({"id": "thought-1", "position": 1, "thought": thought, "observation": observation, "tool": "search",
            "tool_labels": {"search": {"en_US": "Search"}}, "tool_input": "{\"q\": \"x\"}", "message_files": []}),
    )
}

fn workflow(name: &str, more: Value) -> Step {
    event(name, json!({"workflow_run_id": "run", "data": more}))
}

fn node(name: &str) -> Step {
    workflow(
        name,
        json!({"id": "n", "node_id": "llm", "node_type": "llm", "title": "LLM", "index": 1,
        "status": "succeeded"}),
    )
}

fn started() -> Step {
    workflow("workflow_started", json!({"id": "run", "workflow_id": "w", "inputs": {}, "created_at": 1}))
}

fn finished(status: &str) -> Step {
    let error = (status == "failed").then_some("the node LLM failed");
    workflow(
        "workflow_finished",
        json!({"id": "run", "workflow_id": "w", "status": status, "outputs": {}, "error": error, "elapsed_time": 0.1,
            "total_tokens": 12, "total_steps": 3}),
    )
}

const END: Step = Step::Finish { input: 10, output: 2 };

/// A chatflow that has sent its text, and then these last events.
fn chatflow(last: impl IntoIterator<Item = Step>) -> Script {
    let begin = [started(), node("node_started"), text("Hello "), text("there"), node("node_finished")];
    script(begin.into_iter().chain(last))
}

fn chat() -> Script {
    script([text("Hello "), text("there"), END])
}

pub(super) const PRESETS: &[Preset] = &[
    ("dify_chat", "a chatbot", chat),
    ("dify_agent_chat", "an agent: thoughts, text and a file", || {
        let file = json!({"id": "f", "type": "image", "belongs_to": "assistant", "url": "/files/f.png"});
        script([
            thought("", ""),
            agent_text("Hello "),
            thought("I should search", "found"),
            event("message_file", file),
            agent_text("there"),
            END,
        ])
    }),
    ("dify_new_agent", "a new agent: pieces, then one `message` with the whole answer", || {
        script([agent_text("Hello "), agent_text("there"), text("Hello there"), END])
    }),
    ("dify_chatflow_end_first", "a chatflow: `message_end`, then `workflow_finished`", || {
        chatflow([END, finished("succeeded")])
    }),
    ("dify_chatflow_end_last", "a chatflow: `workflow_finished`, then `message_end`", || {
        chatflow([finished("succeeded"), END])
    }),
    ("dify_chatflow_only_end", "a chatflow that loses `workflow_finished`", || chatflow([END])),
    ("dify_chatflow_only_finished", "a chatflow that loses `message_end`", || chatflow([finished("succeeded")])),
    ("dify_chatflow_failed", "a chatflow that fails: `workflow_finished`, then `error`", || {
        chatflow([finished("failed"), Step::Fault(Fault::default())])
    }),
    ("dify_chatflow_text_first", "a chatflow whose text comes before its node began", || {
        script([
            started(),
            text("Hello "),
            node("node_started"),
            text("there"),
            node("node_finished"),
            END,
            finished("succeeded"),
        ])
    }),
    ("dify_chatflow_paused", "a chatflow that waits for a form", || {
        chatflow([
            workflow("human_input_required", json!({"form_id": "f", "node_id": "form"})),
            workflow("workflow_paused", json!({"paused_nodes": ["form"]})),
        ])
    }),
    ("dify_message_replace", "moderation replaces the text", || {
        script([text("Hello "), event("message_replace", json!({"answer": "[hidden]"})), END])
    }),
    ("dify_pings", "pings as a bare event and as data", || {
        let data = Step::Event { name: None, data: Some(json!({"event": "ping"})) };
        script([Step::KeepAlive, text("Hello "), data, text("there"), Step::KeepAlive, END])
    }),
    ("dify_open_after_end", "the connection stays open for 30 seconds after `message_end`", || {
        chat().then(Step::Wait(Duration::from_secs(30)))
    }),
    ("dify_escaped", "an old build: `\\uXXXX` beyond ASCII", || {
        script([text("Grüße "), text("日本 😀"), END]).format(SseFormat { escaped: true, ..SseFormat::default() })
    }),
    ("dify_ignores_stop", "text without end, a piece each 100 ms, that no stop call ends", || {
        script([Step::Endless { every: Duration::from_millis(100), text: None }]).ignoring_stops()
    }),
    ("dify_quota", "400: the model provider's quota is used up", || {
        Script::refuse(Fault::of(400, "", "provider_quota_exceeded")).only(Dialect::Dify)
    }),
    ("dify_unknown_conversation", "404: the conversation does not exist", || {
        let message = Some("Conversation Not Exists.".to_owned());
        Script::refuse(Fault { message, ..Fault::status(404) }).only(Dialect::Dify)
    }),
];
