//! The three protocols, as their servers write them. Faults each have their own forms: the modules make them.

pub mod anthropic;
pub mod dify;
pub mod openai;

use bytes::Bytes;
use http::Method;
use serde_json::Value;

/// The protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

impl Names {
    pub(super) fn new(dialect: Dialect, request: &Value, number: usize) -> Self {
        let text = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let conversation = text("conversation_id");
        Self {
            dialect,
            id: format!("double-{number}"),
            model: text("model"),
            conversation: if conversation.is_empty() { format!("conversation-{number}") } else { conversation },
            wants_usage: request.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)),
        }
    }

    /// What comes before the first text.
    pub fn begin(&self) -> Bytes {
        match self.dialect {
            Dialect::OpenAi => openai::begin(self),
            Dialect::Anthropic => anthropic::begin(self),
            Dialect::Dify => Bytes::new(),
        }
    }

    /// A piece of text.
    pub fn delta(&self, text: &str) -> Bytes {
        match self.dialect {
            Dialect::OpenAi => openai::delta(self, text),
            Dialect::Anthropic => anthropic::delta(text),
            Dialect::Dify => dify::delta(self, text),
        }
    }

    /// A sign of life.
    pub fn keep_alive(&self) -> Bytes {
        Bytes::from_static(match self.dialect {
            Dialect::OpenAi => b": keep-alive\n\n",
            Dialect::Anthropic => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
            Dialect::Dify => b"event: ping\n\n",
        })
    }

    /// The end, with tokens in and out.
    pub fn finish(&self, usage: Option<(u64, u64)>) -> Bytes {
        match self.dialect {
            Dialect::OpenAi => openai::finish(self, usage, "stop"),
            Dialect::Anthropic => anthropic::finish(usage, "end_turn"),
            Dialect::Dify => dify::finish(self, usage),
        }
    }
}

fn data(json: &Value) -> String {
    format!("data: {json}\n\n")
}
