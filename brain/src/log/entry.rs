//! The entries of a session's log. Plain data: no protobuf, no database document, no ciphertext.

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::ErrorCode;
use chatbox_shared::ids::{ClientMessageId, MessageId, Seq, SessionId, UserId};

pub use crate::usage::{FinishReason, TokenUsage};

/// One entry of a log, its content in plain text.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Everything but the content.
    pub meta: EntryMeta,
    /// The text; empty for most events.
    pub content: Content,
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Readable text.
    Text(String),
    /// The stored bytes do not decrypt: the key is a different one, or a byte has changed. Other entries are not affected.
    Unreadable,
}

impl Content {
    /// The text; empty if it cannot be read.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Unreadable => "",
        }
    }
}

/// An entry without its content: the part the store keeps unencrypted.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryMeta {
    /// This entry's id.
    pub id: MessageId,
    /// The session it belongs to.
    pub session: SessionId,
    /// Its place in the log, from 1.
    pub seq: Seq,
    /// Revision, from 1. It grows each time the entry is published again with different contents.
    pub rev: u32,
    /// When it was appended, by the store's clock.
    pub created_at: Timestamp,
    /// Final, streaming or failed.
    pub state: EntryState,
    /// Who wrote it.
    pub sender: Sender,
    /// The kind of the entry, with the fields only this kind has.
    pub body: Body,
}

/// The state of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// It does not change any more.
    Final,
    /// An answer that is being generated.
    Streaming,
    /// An answer that ended in an error. It keeps the text generated until then.
    Failed,
}

/// Who wrote an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// The session's owner.
    User(Person),
    /// The language model.
    Ai,
    /// A human who assists.
    Admin(Person),
    /// chatbox itself.
    System,
}

/// A human as the token names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The token's `sub`.
    pub id: UserId,
    /// The token's `name`, if it has one.
    pub name: Option<String>,
}

/// The fields that depend on the kind of an entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A message of a human.
    Message {
        /// The client's id of the message, unique per session and sender.
        client_msg_id: ClientMessageId,
        /// The AI must answer, and no answer has begun.
        needs_answer: bool,
    },
    /// An answer by the AI.
    Answer(Box<Answer>),
    /// Something that happened.
    Event(LogEvent),
}

/// The fields of an answer. Its row in the store is the lease, the journal and the place in the log at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The message it answers.
    pub reply_to: Seq,
    /// 0 for the first answer to a message; 1 more each time the answer is regenerated.
    pub generation: u32,
    /// The seq of the answer this one replaces.
    pub regenerates: Option<Seq>,
    /// The model that answers.
    pub model_id: String,
    /// The model originally asked, if a fallback answers instead.
    pub asked_model: Option<String>,
    /// The attempt, from 1. An attempt usually starts with an empty text.
    pub attempt: u32,
    /// The index the next delta of this attempt will have.
    pub next_index: u64,
    /// The brain that generates the answer.
    pub owner: String,
    /// Grows with each change of owner. The store refuses writes under an older fence.
    pub fence: u64,
    /// From when other brains may take the answer over, by the store's clock. Meaningful while streaming.
    pub lease_until: Timestamp,
    /// Why it ended; `None` while streaming or if it failed.
    pub finish: Option<FinishReason>,
    /// The error it failed with.
    pub error: Option<ErrorCode>,
    /// When the failed request may succeed again, if that is known.
    pub retry_at: Option<Timestamp>,
    /// The tokens it used.
    pub usage: Option<TokenUsage>,
    /// Milliseconds from the request to the first delta.
    pub first_token_ms: Option<u64>,
    /// Milliseconds from the request to the end.
    pub total_ms: Option<u64>,
    /// The provider's id of the conversation, for providers that keep the history themselves (Dify).
    pub conversation: Option<String>,
}

impl Answer {
    /// The first attempt of an answer to `reply_to`, under fence 1 and without any text.
    pub fn begin(reply_to: Seq, generation: u32, model_id: String, owner: String, lease_until: Timestamp) -> Self {
        Self {
            reply_to,
            generation,
            regenerates: None,
            model_id,
            asked_model: None,
            attempt: 1,
            next_index: 0,
            owner,
            fence: 1,
            lease_until,
            finish: None,
            error: None,
            retry_at: None,
            usage: None,
            first_token_ms: None,
            total_ms: None,
            conversation: None,
        }
    }
}

/// An event in a session. Each change of who may write is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// A human took over. The AI does not answer until they leave.
    AdminJoined(Person),
    /// The human left. The AI answers again from the next message on.
    AdminLeft(Person),
    /// The owner requests a human.
    HelpRequested {
        /// Whether the owner gave a reason. The reason itself is the entry's content, which is encrypted.
        has_reason: bool,
    },
    /// This model answers from now on.
    ModelChanged(String),
    /// The session accepts no more messages.
    SessionEnded,
    /// An event that a newer version appended, and that this version does not know.
    Unknown,
}

impl EntryMeta {
    /// The fields of an answer; `None` for other kinds.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.body {
            Body::Answer(answer) => Some(answer),
            _ => None,
        }
    }

    /// The fields of an answer, mutable; `None` for other kinds.
    pub fn answer_mut(&mut self) -> Option<&mut Answer> {
        match &mut self.body {
            Body::Answer(answer) => Some(answer),
            _ => None,
        }
    }
}
