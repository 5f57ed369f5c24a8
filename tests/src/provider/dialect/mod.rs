//! The three protocols, as their servers encode them.

pub mod anthropic;
pub mod dify;
pub mod openai;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::event::Event;
use super::fault::Fault;
use super::step::{Finish, Usage};

/// The protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// OpenAI Chat Completions.
    OpenAi,
    /// Anthropic Messages.
    Anthropic,
    /// Dify chat messages.
    Dify,
}

impl Dialect {
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        match path {
            _ if method != Method::POST => None,
            _ if path.ends_with("/chat/completions") => Some(Self::OpenAi),
            _ if path.ends_with("/v1/messages") => Some(Self::Anthropic),
            _ if path.ends_with("/chat-messages") => Some(Self::Dify),
            _ => None,
        }
    }

    /// The JSON of a fault: the body of a refusal, or the data of an event.
    pub(super) fn fault(self, fault: &Fault) -> Value {
        match self {
            Self::OpenAi => openai::fault(fault),
            Self::Anthropic => anthropic::fault(fault),
            Self::Dify => dify::fault(fault),
        }
    }

    /// A whole reply.
    pub(super) fn whole(self, text: &str) -> Value {
        match self {
            Self::OpenAi => openai::whole_reply(text),
            Self::Anthropic => anthropic::whole_reply(text),
            Self::Dify => dify::whole_reply(text),
        }
    }
}

/// The ids and names that run through one answer.
#[derive(Debug, Clone)]
pub struct Names {
    dialect: Dialect,
    /// The answer's id, and Dify's task.
    id: String,
    /// The model that was asked.
    model: String,
    /// Dify's conversation: the one of the request, or a new one.
    conversation: String,
    /// OpenAI tells usage only to those who ask.
    wants_usage: bool,
    /// Anthropic's open block.
    block: u32,
    /// Dify's workflow has begun.
    workflow: bool,
}

impl Names {
    pub(super) fn new(dialect: Dialect, request: &Value, number: usize) -> Self {
        let text = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let conversation = text("conversation_id");
        Self {
            dialect,
            id: format!("fake-{number}"),
            model: text("model"),
            conversation: if conversation.is_empty() { format!("conversation-{number}") } else { conversation },
            wants_usage: request.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)),
            block: 0,
            workflow: false,
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Dify's task, which a stop call names.
    pub(super) fn task(&self) -> String {
        format!("task-{}", self.id)
    }

    /// What comes before the first text.
    pub(super) fn begin(&self, usage: Usage) -> Vec<Event> {
        match self.dialect {
            Dialect::OpenAi => vec![openai::begin(self)],
            Dialect::Anthropic => anthropic::begin(self, usage),
            Dialect::Dify => Vec::new(),
        }
    }

    /// A piece of text.
    pub(super) fn delta(&self, text: &str) -> Event {
        match self.dialect {
            Dialect::OpenAi => openai::delta(self, text),
            Dialect::Anthropic => anthropic::delta(self.block, text),
            Dialect::Dify => self.dify("message", &json!({"answer": text})),
        }
    }

    /// A piece of reasoning.
    pub(super) fn reasoning(&mut self, text: &str, field: Option<&str>) -> Vec<Event> {
        match self.dialect {
            Dialect::OpenAi => vec![openai::reasoning(self, field.unwrap_or("reasoning"), text)],
            Dialect::Anthropic => {
                // The open block of text ends, and a new one begins after the thoughts.
                let events = anthropic::thoughts(self.block, text);
                self.block += 2;
                events
            }
            Dialect::Dify => {
                let data = json!({"reasoning": text, "is_final": false, "node_id": "llm"});
                vec![self.dify("reasoning_chunk", &json!({"data": data}))]
            }
        }
    }

    /// A sign of life.
    pub(super) fn keep_alive(&self) -> Event {
        match self.dialect {
            Dialect::OpenAi => Event::Comment("keep-alive".to_owned()),
            Dialect::Anthropic => Event::named("ping", "{\"type\": \"ping\"}"),
            Dialect::Dify => Event::bare("ping"),
        }
    }

    /// The end.
    pub(super) fn finish(&self, finish: &Finish) -> Vec<Event> {
        match self.dialect {
            Dialect::OpenAi => openai::finish(self, finish),
            Dialect::Anthropic => anthropic::finish(self.block, finish),
            Dialect::Dify => dify::finish(self, finish),
        }
    }

    /// The end that a stop call brings about; only Dify has one.
    pub(super) fn stopped(&self, usage: Usage) -> Vec<Event> {
        let mut events = Vec::new();
        if self.workflow {
            let data = json!({"id": "run", "status": "stopped", "outputs": {}, "error": null});
            events.push(self.dify("workflow_finished", &json!({"data": data})));
        }
        events.extend(dify::finish(self, &Finish { usage: Some(usage), ..Finish::default() }));
        events
    }

    /// A fault in the stream.
    pub(super) fn fault(&self, fault: &Fault) -> Vec<Event> {
        match self.dialect {
            Dialect::OpenAi => openai::fault_events(fault),
            Dialect::Anthropic => vec![anthropic::event(&anthropic::fault(fault))],
            Dialect::Dify => {
                let ids = json!({"event": "error", "conversation_id": self.conversation,
                    "message_id": format!("message-{}", self.id), "created_at": 1_790_000_000});
                vec![Event::data(super::event::merged(ids, &dify::fault(fault)))]
            }
        }
    }

    /// A chunk of OpenAI.
    pub(super) fn chunk(&self, more: &Value) -> Event {
        openai::chunk(self, more)
    }

    /// An event of Dify.
    pub(super) fn dify(&self, name: &str, more: &Value) -> Event {
        dify::event(self, name, more)
    }

    /// Like [`Names::dify`], for events of scripts: a workflow that began needs another end.
    pub(super) fn dify_scripted(&mut self, name: &str, more: &Value) -> Event {
        self.workflow |= name == "workflow_started";
        self.dify(name, more)
    }

    /// An event of a kind that the protocol does not have.
    pub(super) fn unknown(&self) -> Event {
        match self.dialect {
            Dialect::OpenAi => Event::named("fake.unknown", json!({"object": "fake.unknown"})),
            Dialect::Anthropic => Event::named("news", json!({"type": "news", "index": 0})),
            Dialect::Dify => self.dify("news", &json!({"data": {}})),
        }
    }
}
