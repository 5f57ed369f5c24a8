//! The request for an answer, and the events of an answer under way.

use std::sync::Arc;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::ErrorCode;
use chatbox_shared::ids::SessionId;

use crate::llm::conversation::Conversation;
use crate::llm::meter::Meter;
use crate::llm::model::Model;
use crate::usage::{FinishReason, TokenUsage};

/// The request for one answer.
pub struct AnswerRequest {
    /// The session, for the log.
    pub session: SessionId,
    /// The user, for the fair order of an endpoint's queue.
    pub user: String,
    /// The selected model, then its fallback models in order.
    pub models: Vec<Arc<Model>>,
    /// The conversation, from which each model gets its prompt.
    pub conversation: Arc<Conversation>,
    /// Reserves and records the calls.
    pub meter: Arc<dyn Meter>,
}

/// An event of an answer under way.
pub enum AnswerEvent {
    /// The following text is by this model. Text of another model before it is void.
    Model(Arc<Model>),
    /// Text to append.
    Delta(String),
    /// Text that replaces all text so far.
    Replace(String),
    /// The provider's id of the conversation, for the next prompt.
    Conversation(String),
    /// The end. No event follows.
    End(AnswerEnd),
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerEnd {
    /// How it ended.
    pub outcome: AnswerOutcome,
    /// The usage of the call whose text was emitted last; `None` where no call was made.
    pub usage: Option<TokenUsage>,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerOutcome {
    /// A model finished, for this reason.
    Finished(FinishReason),
    /// [`Answering::stop`](super::Answering::stop) was called.
    Stopped,
    /// No model could answer, for this reason.
    Failed(AnswerError),
}

/// Why there is no answer, in terms a client may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerError {
    /// The error code.
    pub code: ErrorCode,
    /// When a new attempt may succeed, where that is known.
    pub retry_at: Option<Timestamp>,
}

impl From<ErrorCode> for AnswerError {
    fn from(code: ErrorCode) -> Self {
        Self { code, retry_at: None }
    }
}
