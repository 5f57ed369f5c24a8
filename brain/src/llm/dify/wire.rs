//! The JSON of Dify's chat API. Dify keeps the history, so a request carries only the new question.

use serde::{Deserialize, Serialize};

use crate::llm::http::ErrorReply;
use crate::llm::{ErrorClass, Prompt, ProviderError};

/// A request.
#[derive(Debug, Serialize)]
pub(super) struct Request<'a> {
    pub(super) query: &'a str,
    /// The app's variables; required even if empty.
    pub(super) inputs: Inputs,
    /// Required for a stream: by default the reply is one JSON document.
    pub(super) response_mode: &'static str,
    pub(super) user: &'a str,
    /// Empty for a new conversation.
    pub(super) conversation_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<AttachedFile>,
    /// Off: chatbox names its sessions, and some builds hold the stream open while they generate a name.
    pub(super) auto_generate_name: bool,
}

/// An empty object.
#[derive(Debug, Serialize)]
pub(super) struct Inputs {}

/// The question. Dify rejects an empty one, so images without text get a placeholder.
pub(super) fn query(prompt: &Prompt) -> &str {
    match prompt.question() {
        text if text.trim().is_empty() && !prompt.question_images().is_empty() => "[image]",
        text => text,
    }
}

/// A file that was uploaded before.
#[derive(Debug, Serialize)]
pub(super) struct AttachedFile {
    #[serde(rename = "type")]
    kind: &'static str,
    transfer_method: &'static str,
    upload_file_id: String,
}

impl AttachedFile {
    /// The uploaded image with this id.
    pub(super) fn image(upload_file_id: String) -> Self {
        Self { kind: "image", transfer_method: "local_file", upload_file_id }
    }
}

/// The reply to an upload.
#[derive(Debug, Deserialize)]
pub(super) struct Uploaded {
    pub(super) id: String,
}

/// The body of a stop request. It must name the user who asked, or it has no effect.
#[derive(Debug, Serialize)]
pub(super) struct StopRequest<'a> {
    pub(super) user: &'a str,
}

/// An event of the stream, or a whole reply. Its fields depend on `event`.
#[derive(Debug, Deserialize)]
pub(super) struct StreamEvent {
    #[serde(default)]
    pub(super) event: String,
    pub(super) task_id: Option<String>,
    pub(super) conversation_id: Option<String>,
    pub(super) answer: Option<String>,
    pub(super) metadata: Option<Metadata>,
    pub(super) data: Option<WorkflowData>,
    #[serde(flatten)]
    pub(super) dify_error: DifyError,
}

/// The usage of the answer.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) usage: Option<Tokens>,
}

/// Tokens in and out; zero where no model ran.
#[derive(Debug, Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
}

/// The inner part of workflow events.
#[derive(Debug, Deserialize)]
pub(super) struct WorkflowData {
    pub(super) status: Option<String>,
    pub(super) error: Option<String>,
}

/// An error: of an `error` event or an error reply.
#[derive(Debug, Default, Deserialize)]
pub(super) struct DifyError {
    pub(super) status: Option<u16>,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl DifyError {
    /// The error in the body of an error reply; `None` where it is not Dify's, because proxies reply too.
    pub(super) fn find(reply: &ErrorReply) -> Option<Self> {
        // Serde would accept a list of the fields in order.
        let is_object = reply.body.trim_ascii_start().starts_with(b"{");
        let dify_error: Self = serde_json::from_slice(&reply.body).ok().filter(|_| is_object)?;
        Some(dify_error).filter(|dify_error| !dify_error.code.is_empty() || !dify_error.message.is_empty())
    }

    /// The error's words, for the log.
    pub(super) fn said(&self) -> String {
        format!("{}: {}", self.code, self.message)
    }

    /// The conversation is gone or full: a new one may succeed.
    pub(super) fn wants_new_conversation(&self, status: u16) -> bool {
        status == 404 || self.code == "conversation_completed"
    }

    /// The class of the error; `None` for an unknown code.
    pub(super) fn class(&self) -> Option<ErrorClass> {
        Some(match self.code.as_str() {
            "provider_quota_exceeded" | "rate_limit_error" => ErrorClass::Quota,
            "too_many_requests" => ErrorClass::RateLimited,
            "unauthorized" | "forbidden" => ErrorClass::Auth,
            "not_found" | "model_currently_not_support" => ErrorClass::NotFound,
            "internal_server_error" | "unknown" => ErrorClass::Server,
            "completion_request_error" if self.message.to_ascii_lowercase().contains("context length") => {
                ErrorClass::ContextLength
            }
            // Any error of the model behind the app, also a passing one.
            "completion_request_error" => ErrorClass::Server,
            "invalid_param"
            | "bad_request"
            | "app_unavailable"
            | "not_chat_app"
            | "conversation_completed"
            | "provider_not_initialize" => ErrorClass::Rejected,
            _ => return None,
        })
    }

    /// Dify has retried the model already, so a retry from here is useless.
    pub(super) fn should_retry(&self) -> Option<bool> {
        (self.code == "completion_request_error").then_some(false)
    }

    /// The error of an `error` event.
    pub(super) fn in_stream(&self) -> ProviderError {
        let by_status = || self.status.map_or(ErrorClass::Server, crate::llm::http::class_of_status);
        let error = ProviderError::new(self.class().unwrap_or_else(by_status), self.said());
        ProviderError { should_retry: self.should_retry(), ..error }
    }
}
