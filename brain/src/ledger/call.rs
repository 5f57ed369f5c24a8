//! A provider call: what it is for, and how it ends.

use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{CallId, Seq, SessionId, UserId};

use super::day::Day;
use crate::usage::FinishReason;

/// A provider call before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The id of the call.
    pub id: CallId,
    /// The user who is charged: the session's owner.
    pub user: UserId,
    /// The session.
    pub session: SessionId,
    /// The purpose.
    pub purpose: Purpose,
    /// The seq of the answer in the log; 0 for other purposes.
    pub seq: Seq,
    /// The attempt of the answer; 0 for other purposes.
    pub attempt: u32,
    /// The configured id of the model.
    pub model_id: String,
    /// The provider's protocol: `openai`, `anthropic`, `dify`, `demo`.
    pub provider: String,
    /// When the call began, by the store's clock. Its day (UTC) is the day that is charged.
    pub started_at: Timestamp,
}

/// The purpose of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// An answer.
    Answer,
    /// A session's name.
    Name,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallFinish {
    /// The model was done.
    Stop,
    /// A token limit cut it.
    Length,
    /// The provider's content rules cut it.
    ContentFilter,
    /// A participant stopped it.
    Stopped,
    /// A human took over, or the provider's own operator stopped it.
    Interrupted,
    /// The call failed; another call may have followed.
    Failed,
    /// Its brain stopped and handed the answer over to another brain.
    HandedOver,
    /// Its brain died, or was paused for so long that another brain took over. The numbers are estimates.
    Lost,
}

impl Call {
    /// The day that is charged.
    pub fn day(&self) -> Day {
        Day::of(self.started_at)
    }
}

impl Purpose {
    /// The stable name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Name => "name",
        }
    }

    /// The purpose with this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Answer, Self::Name].into_iter().find(|purpose| purpose.as_str() == text)
    }
}

impl CallFinish {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Stop,
        Self::Length,
        Self::ContentFilter,
        Self::Stopped,
        Self::Interrupted,
        Self::Failed,
        Self::HandedOver,
        Self::Lost,
    ];

    /// The stable name in the store and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::HandedOver => "handed_over",
            Self::Lost => "lost",
        }
    }

    /// The ending of a call whose answer finished for this reason.
    pub fn of(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop => Self::Stop,
            FinishReason::Length => Self::Length,
            FinishReason::Stopped => Self::Stopped,
            FinishReason::Interrupted => Self::Interrupted,
            FinishReason::ContentFilter => Self::ContentFilter,
        }
    }

    /// The ending with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|finish| finish.as_str() == text)
    }
}
