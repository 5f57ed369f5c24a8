//! The JSON of Anthropic Messages. Unknown fields are ignored everywhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::llm::{ErrorClass, Image, Prompt, PromptRole, PromptTurn, ProviderError};

/// A request.
#[derive(Debug, Serialize)]
pub(super) struct Request<'a> {
    pub(super) model: &'a str,
    pub(super) max_tokens: u64,
    pub(super) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) system: Option<&'a str>,
    pub(super) messages: Vec<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<Metadata<'a>>,
    /// The only sampling field chatbox sends; one API version rejects it at any value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f64>,
}

/// The user who asks.
#[derive(Debug, Serialize)]
pub(super) struct Metadata<'a> {
    pub(super) user_id: &'a str,
}

/// One message of the conversation.
#[derive(Debug, Serialize)]
pub(super) struct Message {
    role: &'static str,
    content: Content,
}

/// A plain string is short for one block of text.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Blocks(Vec<ContentBlock>),
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentBlock {
    Text { text: String },
    Image { source: ImageSource },
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ImageSource {
    Base64 { media_type: String, data: String },
}

impl Content {
    /// Images come first: models read them better before the question.
    fn of(turn: PromptTurn) -> Self {
        if turn.images.is_empty() {
            return Self::Text(turn.text);
        }
        let text = Some(turn.text).filter(|text| !text.is_empty()).map(|text| ContentBlock::Text { text });
        Self::Blocks(turn.images.into_iter().map(ContentBlock::image).chain(text).collect())
    }
}

impl ContentBlock {
    fn image(Image { media_type, data }: Image) -> Self {
        Self::Image { source: ImageSource::Base64 { media_type, data: STANDARD.encode(data) } }
    }
}

/// The conversation; the instructions have a field of their own.
pub(super) fn messages(prompt: &Prompt) -> Vec<Message> {
    let turns = prompt.alternating().into_iter().map(|turn| Message {
        role: match turn.role {
            PromptRole::User => "user",
            PromptRole::Assistant => "assistant",
        },
        content: Content::of(turn),
    });
    turns.collect()
}

/// One event of the stream, by its `type`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum StreamEvent {
    MessageStart {
        message: Reply,
    },
    ContentBlockStart {
        content_block: Block,
    },
    ContentBlockDelta {
        delta: BlockDelta,
    },
    MessageDelta {
        delta: MessageEnd,
        usage: Option<Tokens>,
    },
    MessageStop,
    Error {
        error: AnthropicError,
    },
    /// Pings, ends of blocks, and events of later versions.
    #[serde(other)]
    Other,
}

/// A message: empty at the start of a stream, whole in a JSON reply.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    pub(super) content: Option<Vec<Block>>,
    pub(super) stop_reason: Option<String>,
    pub(super) usage: Option<Tokens>,
    /// An error in place of the other fields, whatever the status.
    pub(super) error: Option<AnthropicError>,
}

/// A part of the answer. Only `text` is the answer; thinking and tools are not.
#[derive(Debug, Deserialize)]
pub(super) struct Block {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: String,
}

impl Block {
    pub(super) fn text(&self) -> &str {
        if self.kind == "text" { &self.text } else { "" }
    }
}

/// What is new in a block.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum BlockDelta {
    TextDelta {
        text: String,
    },
    /// Thinking, signatures, tool arguments, citations, and deltas of later versions.
    #[serde(other)]
    Other,
}

/// How the message ended.
#[derive(Debug, Deserialize)]
pub(super) struct MessageEnd {
    pub(super) stop_reason: Option<String>,
}

/// The usage of the call. The numbers are totals so far, not differences; missing ones are unchanged.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Tokens {
    pub(super) input_tokens: Option<u64>,
    pub(super) cache_creation_input_tokens: Option<u64>,
    pub(super) cache_read_input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
}

impl Tokens {
    /// Takes over the numbers that `newer` contains.
    pub(super) fn update(&mut self, newer: &Self) {
        self.input_tokens = newer.input_tokens.or(self.input_tokens);
        self.cache_creation_input_tokens = newer.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.cache_read_input_tokens = newer.cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.output_tokens = newer.output_tokens.or(self.output_tokens);
    }

    /// Tokens of the prompt, cached ones included.
    pub(super) fn input(&self) -> u64 {
        [self.input_tokens, self.cache_creation_input_tokens, self.cache_read_input_tokens]
            .iter()
            .flatten()
            .fold(0, |sum, tokens| sum.saturating_add(*tokens))
    }

    /// Tokens of the prompt that were read from the cache. Tokens written to the cache cost more, not less.
    pub(super) fn cached(&self) -> u64 {
        self.cache_read_input_tokens.unwrap_or_default()
    }
}

/// The body of an error reply.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) error: AnthropicError,
}

/// An error as Anthropic reports it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct AnthropicError {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    message: String,
    details: Option<Details>,
}

/// The details of an error.
#[derive(Debug, Deserialize)]
struct Details {
    error_code: Option<String>,
}

impl AnthropicError {
    /// The error's words, for the log.
    pub(super) fn said(&self) -> String {
        format!("{}/{}: {}", self.kind, self.code(), self.message)
    }

    /// The error of a reply with status 200.
    pub(super) fn in_stream(&self) -> ProviderError {
        ProviderError::new(self.class(true).unwrap_or(ErrorClass::Server), self.said())
    }

    /// Whether the model rejects the temperature.
    pub(super) fn names_temperature(&self) -> bool {
        self.kind == "invalid_request_error" && self.message.contains("temperature")
    }

    fn code(&self) -> &str {
        self.details.as_ref().and_then(|details| details.error_code.as_deref()).unwrap_or_default()
    }

    /// The class of the error; `None` for an unknown type. The type decides, not the status, which is 200 within a
    /// stream. `may_wait`: the provider named a time after which to retry.
    pub(super) fn class(&self, may_wait: bool) -> Option<ErrorClass> {
        let message = self.message.to_ascii_lowercase();
        let about_money = self.code().contains("spend_limit")
            || message.contains("credit balance")
            || (message.contains("spend") && !may_wait);
        Some(match self.kind.as_str() {
            "billing_error" => ErrorClass::Quota,
            "rate_limit_error" | "invalid_request_error" if about_money => ErrorClass::Quota,
            "rate_limit_error" => ErrorClass::RateLimited,
            "overloaded_error" | "conflict_error" => ErrorClass::Overloaded,
            "api_error" => ErrorClass::Server,
            "timeout_error" => ErrorClass::Timeout,
            "authentication_error" | "permission_error" => ErrorClass::Auth,
            "not_found_error" => ErrorClass::NotFound,
            "invalid_request_error" if message.contains("prompt is too long") || message.contains("context") => {
                ErrorClass::ContextLength
            }
            "invalid_request_error" | "request_too_large" => ErrorClass::Rejected,
            _ => return None,
        })
    }
}
