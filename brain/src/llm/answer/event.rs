//! The request for an answer, and the events of an answer under way.

use std::sync::Arc;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::ErrorCode;
use chatbox_shared::ids::SessionId;

use crate::llm::conversation::Conversation;
use crate::llm::meter::Meter;
use crate::llm::model::Model;
use crate::usage::{FinishReason, TokenUsage};

/// What is asked.
pub struct AnswerRequest {
    /// For the log.
    pub session: SessionId,
    /// Whose place in an endpoint's queue it takes.
    pub user: String,
    /// The model, then those it falls back to, in order.
    pub models: Vec<Arc<Model>>,
    /// What the prompts are made of.
    pub conversation: Arc<Conversation>,
    /// Keeps account of the calls.
    pub meter: Arc<dyn Meter>,
}

/// A piece of an answer.
pub enum AnswerEvent {
    /// This model speaks from here on. What another one said before is void.
    Model(Arc<Model>),
    /// Text to append.
    Delta(String),
    /// Other text in place of all so far.
    Replace(String),
    /// The provider's id of the conversation.
    Conversation(String),
    /// The end. Nothing follows.
    End(AnswerEnd),
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerEnd {
    /// How it ended.
    pub outcome: AnswerOutcome,
    /// What the call used whose text was handed out last; `None` where no call was made.
    pub usage: Option<TokenUsage>,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerOutcome {
    /// The model was done, or was cut for this reason.
    Finished(FinishReason),
    /// [`Answering::stop`] was called.
    Stopped,
    /// No model could answer.
    Failed(AnswerError),
}

/// Why there is no answer, as a client may know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerError {
    /// The kind.
    pub code: ErrorCode,
    /// When it passes, where that is known.
    pub retry_at: Option<Timestamp>,
}

impl From<ErrorCode> for AnswerError {
    fn from(code: ErrorCode) -> Self {
        Self { code, retry_at: None }
    }
}
