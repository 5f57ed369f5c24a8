//! What a session's log is made of. Plain data: no protobuf, no database document, no ciphertext.

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::ErrorCode;
use chatbox_shared::ids::{ClientMessageId, MessageId, Seq, SessionId, UserId};

pub use crate::usage::{FinishReason, TokenUsage};

/// One entry of a log with its content in the clear.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Everything but the content.
    pub meta: EntryMeta,
    /// What was said; empty for events.
    pub content: Content,
}

/// The content of an entry, or the fact that it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// What was said.
    Text(String),
    /// The stored bytes do not decrypt: another key, or a changed byte. The rest of the log is unharmed.
    Unreadable,
}

impl Content {
    /// The text, empty where it cannot be read.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Unreadable => "",
        }
    }
}

/// An entry without its content: what the store keeps in the clear.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryMeta {
    /// This entry's id.
    pub id: MessageId,
    /// The session it belongs to.
    pub session: SessionId,
    /// Its place in the log, from 1.
    pub seq: Seq,
    /// Grows when the entry is published again with other contents, from 1.
    pub rev: u32,
    /// When it was appended, by the store's clock.
    pub created_at: Timestamp,
    /// Final, streaming or failed.
    pub state: EntryState,
    /// Who said it.
    pub sender: Sender,
    /// What it is, with the parts only that kind has.
    pub body: Body,
}

/// How far an entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// It will not change any more.
    Final,
    /// An answer that is being generated.
    Streaming,
    /// An answer that ended in an error; it keeps the text it had.
    Failed,
}

/// Who said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// The session's owner.
    User(Person),
    /// The language model.
    Ai,
    /// The human who assists.
    Admin(Person),
    /// chatbox itself.
    System,
}

/// A human as the token names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The token's `sub`.
    pub id: UserId,
    /// The token's `name`, where it has one.
    pub name: Option<String>,
}

/// The parts an entry has by its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A message of a human.
    Message {
        /// The client's id: unique per session and sender.
        client_msg_id: ClientMessageId,
        /// An answer by the AI is due and nobody has begun one.
        needs_answer: bool,
    },
    /// An answer by the AI.
    Answer(Box<Answer>),
    /// Something that happened.
    Event(Event),
}

/// An answer's own row is its lease, its journal and its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The message it answers.
    pub reply_to: Seq,
    /// 0 for the first answer to a message, then 1, 2 … for each time it was generated anew.
    pub generation: u32,
    /// The seq of the answer this one replaces.
    pub regenerates: Option<Seq>,
    /// The model that answers.
    pub model_id: String,
    /// The model that was asked, while a fallback answers in its place.
    pub asked_model: Option<String>,
    /// Which try this is, from 1. Each starts with an empty text.
    pub attempt: u32,
    /// The index the next delta of this attempt will have.
    pub next_index: u64,
    /// The brain that generates.
    pub owner: String,
    /// Grows with every change of owner; a writer with an older one is refused.
    pub fence: u64,
    /// When others may take it over, by the store's clock. Meaningful while streaming.
    pub lease_until: Timestamp,
    /// Why it ended.
    pub finish: Option<FinishReason>,
    /// The fault it failed with.
    pub error: Option<ErrorCode>,
    /// When what was used up is there again, for a fault that passes at a known time.
    pub retry_at: Option<Timestamp>,
    /// What it used.
    pub usage: Option<TokenUsage>,
    /// Milliseconds from the request to the first delta.
    pub first_token_ms: Option<u64>,
    /// Milliseconds from the request to the end.
    pub total_ms: Option<u64>,
    /// The provider's own name for this conversation, where the provider keeps the history (Dify).
    pub conversation: Option<String>,
}

/// Something that happened in a session. Every change of who may speak is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A human has taken over; the AI is silent until they leave.
    AdminJoined(Person),
    /// The human has left; the AI answers again from the next message on.
    AdminLeft(Person),
    /// The user asks for a human.
    HelpRequested {
        /// In the user's words. Kept encrypted as the entry's content, not here.
        has_reason: bool,
    },
    /// Another model answers from now on.
    ModelChanged(String),
    /// The session takes no more messages.
    SessionEnded,
}

impl EntryMeta {
    /// The answer's part, if this is one.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.body {
            Body::Answer(answer) => Some(answer),
            _ => None,
        }
    }

    /// The answer's part, if this is one.
    pub fn answer_mut(&mut self) -> Option<&mut Answer> {
        match &mut self.body {
            Body::Answer(answer) => Some(answer),
            _ => None,
        }
    }
}
