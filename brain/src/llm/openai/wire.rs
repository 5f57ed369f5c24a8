//! The JSON of OpenAI Chat Completions and of the many servers that speak it. Unknown fields are ignored everywhere, and
//! a field may be missing or null wherever some server was seen to leave it so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::llm::{ErrorClass, Image, Prompt, PromptRole, PromptTurn};

/// A request. Fields that are not set are left out: some models reject nulls.
#[derive(Debug, Serialize)]
pub(super) struct Request<'a> {
    pub(super) model: &'a str,
    pub(super) stream: bool,
    pub(super) stream_options: StreamOptions,
    pub(super) messages: Vec<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) safety_identifier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
}

/// Asks for the usage, which a stream does not report by default.
#[derive(Debug, Serialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
}

/// One message of the conversation.
#[derive(Debug, Serialize)]
pub(super) struct Message {
    role: &'static str,
    content: Content,
}

/// A plain string where there are no images: not every server knows parts.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text { text: String },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Debug, Serialize)]
struct ImageUrl {
    url: String,
}

impl Content {
    fn of(turn: PromptTurn) -> Self {
        if turn.images.is_empty() {
            return Self::Text(turn.text);
        }
        let text = Some(turn.text).filter(|text| !text.is_empty()).map(|text| Part::Text { text });
        Self::Parts(text.into_iter().chain(turn.images.iter().map(Part::image)).collect())
    }
}

impl Part {
    /// An image as a data URL, the only form local servers accept.
    fn image(image: &Image) -> Self {
        let url = format!("data:{};base64,{}", image.media_type, STANDARD.encode(&image.data));
        Self::ImageUrl { image_url: ImageUrl { url } }
    }
}

/// The instructions, then the conversation.
pub(super) fn messages(prompt: &Prompt) -> Vec<Message> {
    let system = prompt.system.iter().map(|text| Message { role: "system", content: Content::Text(text.clone()) });
    let turns = prompt.alternating().into_iter().map(|turn| Message {
        role: match turn.role {
            PromptRole::User => "user",
            PromptRole::Assistant => "assistant",
        },
        content: Content::of(turn),
    });
    system.chain(turns).collect()
}

/// A chunk of a stream, or a whole reply, which has `message` where a chunk has `delta`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Reply {
    pub(super) choices: Option<Vec<Choice>>,
    pub(super) usage: Option<Tokens>,
    /// Any value but null is an error, whatever the status.
    pub(super) error: Option<Value>,
    /// `error` where the error's fields are in this object itself.
    pub(super) object: Option<String>,
}

/// One of the answers; only one is requested.
#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    #[serde(default)]
    pub(super) index: u64,
    /// Missing in chunks that only annotate the text (Azure's content filter).
    pub(super) delta: Option<Delta>,
    /// The whole text, in a whole reply.
    pub(super) message: Option<Delta>,
    pub(super) finish_reason: Option<String>,
}

/// New text. Reasoning arrives in other fields and is not part of the answer.
#[derive(Debug, Deserialize)]
pub(super) struct Delta {
    pub(super) content: Option<String>,
    pub(super) refusal: Option<String>,
}

/// The usage of the call.
#[derive(Debug, Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
    prompt_tokens_details: Option<PromptDetails>,
}

/// The parts of the prompt's tokens.
#[derive(Debug, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

impl Tokens {
    /// Tokens of the prompt that came from the provider's cache.
    pub(super) fn cached(&self) -> u64 {
        self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens).unwrap_or_default()
    }
}

/// An error: `{"error":{..}}`, `{"error":"text"}`, or the flat `{"object":"error",..}`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OpenAiError {
    pub(super) message: String,
    kind: String,
    code: String,
    /// The field of the request that caused the error.
    param: String,
}

impl OpenAiError {
    /// The error in a body, in any of the known forms.
    pub(super) fn find(body: &Value) -> Option<Self> {
        match body.get("error") {
            Some(Value::String(text)) if !text.is_empty() => Some(Self { message: text.clone(), ..Self::default() }),
            Some(error @ Value::Object(_)) => Some(Self::of(error)),
            _ if body.get("object")? == "error" => Some(Self::of(body)),
            _ => None,
        }
    }

    fn of(error: &Value) -> Self {
        let text = |name: &str| match error.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        Self { message: text("message"), kind: text("type"), code: text("code"), param: text("param") }
    }

    /// The error's words, for the log.
    pub(super) fn said(&self) -> String {
        format!("{}/{}: {}", self.kind, self.code, self.message)
    }

    /// Whether the model rejects a sampling field.
    pub(super) fn names_sampling(&self) -> bool {
        matches!(self.code.as_str(), "unsupported_value" | "unsupported_parameter")
            && matches!(self.param.as_str(), "temperature" | "top_p")
    }

    /// The class of the error by its words; `None` where they do not tell and the HTTP status decides.
    pub(super) fn class(&self) -> Option<ErrorClass> {
        let either = |names: &[&str]| names.contains(&self.code.as_str()) || names.contains(&self.kind.as_str());
        let message = self.message.to_ascii_lowercase();
        if either(&[
            "insufficient_quota",
            "credit_balance_exhausted",
            "billing_hard_limit_reached",
            "billing_not_active",
        ]) || self.code.contains("spend_limit")
        {
            return Some(ErrorClass::Quota);
        }
        if either(&["context_length_exceeded"])
            || message.contains("maximum context length")
            || message.contains("context length exceeded")
        {
            return Some(ErrorClass::ContextLength);
        }
        if either(&["content_filter", "content_policy_violation"]) {
            return Some(ErrorClass::ContentFiltered);
        }
        if either(&["rate_limit_exceeded", "slow_down"]) {
            return Some(ErrorClass::RateLimited);
        }
        if either(&["server_is_overloaded", "service_unavailable_error", "overloaded_error"]) {
            return Some(ErrorClass::Overloaded);
        }
        if either(&["invalid_api_key", "authentication_error", "permission_error"]) {
            return Some(ErrorClass::Auth);
        }
        if either(&["model_not_found", "not_found_error"]) {
            return Some(ErrorClass::NotFound);
        }
        None
    }

    /// The class of an error within a stream, whose HTTP status was 200.
    pub(super) fn class_in_stream(&self) -> ErrorClass {
        let status = self.code.parse().ok().filter(|status| (400..600).contains(status));
        match (self.class(), status, self.kind.as_str()) {
            (Some(class), _, _) => class,
            (None, Some(status), _) => crate::llm::http::class_of_status(status),
            (None, None, "invalid_request_error" | "BadRequestError") => ErrorClass::Rejected,
            (None, None, "rate_limit_error") => ErrorClass::RateLimited,
            (None, None, "timeout_error") => ErrorClass::Timeout,
            (None, None, _) => ErrorClass::Server,
        }
    }
}
