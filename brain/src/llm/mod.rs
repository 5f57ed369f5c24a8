//! Language models. [`Provider`] is the seam: one implementation per wire protocol, each turning a [`Prompt`] into a
//! stream of [`Chunk`]s. What surrounds calls is in [`answer`]: limits, further tries, other models, and the account that is
//! kept of each. A provider makes one request for each call, no more.
//!
//! To add a provider: a module with `wire` (the JSON), `stream` (events to chunks, tested at every byte split) and `mod`
//! (the requests), a variant of [`config::Kind`], and a line in [`catalog`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chatbox_shared::failure::ErrorCode;

use self::endpoint::Verdict;
use crate::session::entry::FinishReason;

pub mod answer;
pub mod anthropic;
pub mod catalog;
pub mod config;
pub mod conversation;
pub mod demo;
pub mod dify;
pub mod endpoint;
pub mod http;
pub mod meter;
pub mod openai;
pub mod price;
pub mod retry;
pub mod sse;
mod stream;
pub mod tokens;

/// A service that answers prompts.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Sends the prompt, in one request for an answer and no more: each is one record of what was used. Returns once the
    /// provider has accepted it, before the first text.
    ///
    /// # Errors
    /// Everything that went wrong before the stream began; the class says whether another try may help, the remedy what to
    /// change for it.
    async fn generate(&self, prompt: &Prompt) -> Result<Box<dyn Generation>, ProviderError>;
}

/// A provider shared by all turns.
pub type SharedProvider = Arc<dyn Provider>;

/// An answer under way. Dropping it closes the provider's connection.
#[async_trait]
pub trait Generation: Send {
    /// The next piece; `None` after [`Chunk::Finish`]. A stream that ends without a finish yields an error of class
    /// [`ErrorClass::Truncated`] first. The future may be dropped and asked for again: nothing is lost.
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>>;

    /// Stops the generation at the provider: a stop call where the protocol has one, then the connection is closed.
    async fn cancel(self: Box<Self>);
}

/// What a model is asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// Instructions of the operator, never of the user.
    pub system: Option<String>,
    /// The conversation, oldest first, ending with the user message to answer. Whole messages only.
    pub turns: Vec<PromptTurn>,
    /// An opaque stable hash of the user's id; no personal data.
    pub user: String,
    /// The provider's own conversation id from an earlier answer (Dify).
    pub conversation: Option<String>,
    /// Names this call at the provider and in the ledger; sent along, so that both sides' records can be compared.
    pub request_id: String,
    /// Leave out temperature and the like: the model was found to refuse them.
    pub without_sampling: bool,
}

impl Prompt {
    /// The message to answer.
    pub fn question(&self) -> &str {
        self.turns.iter().rev().find(|turn| turn.role == PromptRole::User).map_or("", |turn| &turn.text)
    }

    /// The pictures that go with the message to answer.
    pub fn question_images(&self) -> &[Image] {
        self.turns.iter().rev().find(|turn| turn.role == PromptRole::User).map_or(&[], |turn| &turn.images)
    }

    /// The turns as every model takes them: the user begins, both speak in turn, no message is empty. Neighbours of one
    /// speaker are joined by a blank line, what stands before the first word of the user is left out, and so are pictures
    /// that are not the user's: no protocol has a place for them. A text is empty only beside pictures.
    pub fn alternating(&self) -> Vec<PromptTurn> {
        let mut turns: Vec<PromptTurn> = Vec::with_capacity(self.turns.len());
        let said = self.turns.iter().map(|turn| {
            let text = if turn.text.trim().is_empty() { "" } else { &turn.text };
            let images = if turn.role == PromptRole::User { turn.images.as_slice() } else { &[] };
            (turn.role, text, images)
        });
        let said = said.filter(|(_, text, images)| !text.is_empty() || !images.is_empty());
        for (role, text, images) in said.skip_while(|(role, ..)| *role == PromptRole::Assistant) {
            match turns.last_mut().filter(|last| last.role == role) {
                Some(last) => {
                    if !last.text.is_empty() && !text.is_empty() {
                        last.text.push_str("\n\n");
                    }
                    last.text.push_str(text);
                    last.images.extend_from_slice(images);
                }
                None => turns.push(PromptTurn { role, text: text.to_owned(), images: images.to_vec() }),
            }
        }
        turns
    }
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptTurn {
    /// Who said it, as a model sees it.
    pub role: PromptRole,
    /// What was said.
    pub text: String,
    /// Pictures that go with it.
    pub images: Vec<Image>,
}

/// A picture as it goes to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
    pub media_type: String,
    /// The file.
    pub data: Bytes,
}

/// Who speaks, as a model sees it. An assisting human speaks as the assistant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptRole {
    /// The user.
    User,
    /// The model, or a human in its place.
    Assistant,
}

/// One piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Text to append. Never empty.
    Delta(String),
    /// The whole text so far is replaced by this one (moderation); a new attempt for those who read along.
    Replace(String),
    /// The provider's count of the prompt, known before the end; the answer's is not. It is all there is to know of a call
    /// that is cancelled or breaks; [`Chunk::Usage`] replaces it.
    InputTokens {
        /// Of the prompt, the cached ones included.
        input: u64,
        /// Of the prompt, those the provider had in its cache.
        cached: u64,
    },
    /// What the call used; a later one replaces an earlier one.
    Usage(TokenUsage),
    /// The provider's id of this conversation, for the next prompt.
    Conversation(String),
    /// The end. Nothing follows.
    Finish(FinishReason),
}

/// What one call used, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// Of the prompt, the cached ones included.
    pub input: u64,
    /// Of the prompt, those the provider had in its cache, which mostly cost less.
    pub cached: u64,
    /// Of the answer, hidden reasoning included.
    pub output: u64,
    /// The provider reported none; this is chatbox's estimate.
    pub estimated: bool,
}

/// A failed call. `Display` and `detail` are for the log only: they may quote the provider.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{class:?}{}: {detail}", status.map(|status| format!(" (HTTP {status})")).unwrap_or_default())]
pub struct ProviderError {
    /// What kind of failure.
    pub class: ErrorClass,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// The provider's own wish when to try again.
    pub retry_after: Option<Duration>,
    /// The provider's explicit word on retrying (`x-should-retry`), which overrides the class.
    pub should_retry: Option<bool>,
    /// What to change before the same call is made once more, at once.
    pub remedy: Option<Remedy>,
    /// Nothing of the request has reached the provider.
    pub unsent: bool,
    /// For the log: a short prefix of what the provider said. Never contains a key.
    pub detail: String,
}

/// A change that may make a refused call succeed. Each is tried once for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// The provider has lost its conversation, or it is full: begin a new one.
    NewConversation,
    /// The model takes no temperature: leave it out.
    WithoutSampling,
    /// The prompt was too long: send less of the history.
    LessHistory,
}

/// Kinds of failure, each with one rule for retrying and one code for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The connection could not be made, or broke before the answer's head.
    Connect,
    /// A time limit of ours passed, or the provider says it timed out.
    Timeout,
    /// Too many requests now.
    RateLimited,
    /// The provider is overloaded.
    Overloaded,
    /// The provider failed in itself (5xx).
    Server,
    /// The stream ended before the answer did.
    Truncated,
    /// The stream is not what the protocol says.
    Protocol,
    /// Wrong key, no permission.
    Auth,
    /// Out of money or quota.
    Quota,
    /// The provider does not take this request.
    Rejected,
    /// The prompt is longer than the model can take.
    ContextLength,
    /// The model or the conversation does not exist.
    NotFound,
    /// Refused by the provider's content rules.
    ContentFiltered,
    /// Not called: the endpoint has failed too often.
    CircuitOpen,
    /// Not called: too many wait for the endpoint.
    QueueFull,
}

impl PromptTurn {
    /// A message of the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: PromptRole::User, text: text.into(), images: Vec::new() }
    }

    /// A message of the model.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: PromptRole::Assistant, text: text.into(), images: Vec::new() }
    }
}

impl ErrorClass {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Timeout,
        Self::RateLimited,
        Self::Overloaded,
        Self::Server,
        Self::Truncated,
        Self::Protocol,
        Self::Auth,
        Self::Quota,
        Self::Rejected,
        Self::ContextLength,
        Self::NotFound,
        Self::ContentFiltered,
        Self::CircuitOpen,
        Self::QueueFull,
    ];

    /// The name in the ledger and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Server => "server",
            Self::Truncated => "truncated",
            Self::Protocol => "protocol",
            Self::Auth => "auth",
            Self::Quota => "quota",
            Self::Rejected => "rejected",
            Self::ContextLength => "context_length",
            Self::NotFound => "not_found",
            Self::ContentFiltered => "content_filtered",
            Self::CircuitOpen => "circuit_open",
            Self::QueueFull => "queue_full",
        }
    }

    /// May another model do what this one could not? What content rules withheld is not asked elsewhere.
    pub fn falls_back(self) -> bool {
        self != Self::ContentFiltered
    }

    /// What it says about the endpoint.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Connect | Self::Timeout | Self::Overloaded | Self::Server | Self::Truncated | Self::Protocol => {
                Verdict::Failed
            }
            Self::RateLimited
            | Self::Auth
            | Self::Quota
            | Self::Rejected
            | Self::ContextLength
            | Self::NotFound
            | Self::ContentFiltered
            | Self::CircuitOpen
            | Self::QueueFull => Verdict::Neutral,
        }
    }

    /// May the same call succeed when made again?
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::Timeout | Self::RateLimited | Self::Overloaded | Self::Server | Self::Truncated
        )
    }

    /// What the client is told.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Connect
            | Self::RateLimited
            | Self::Overloaded
            | Self::Server
            | Self::Truncated
            | Self::Protocol
            | Self::CircuitOpen
            | Self::QueueFull => ErrorCode::ProviderUnavailable,
            Self::Timeout => ErrorCode::ProviderTimeout,
            Self::Auth | Self::Quota | Self::Rejected | Self::ContextLength => ErrorCode::ProviderRejected,
            Self::NotFound => ErrorCode::ModelUnavailable,
            Self::ContentFiltered => ErrorCode::ContentFiltered,
        }
    }
}

impl ProviderError {
    /// A failure without any HTTP answer.
    pub fn new(class: ErrorClass, detail: impl Into<String>) -> Self {
        Self {
            class,
            status: None,
            retry_after: None,
            should_retry: None,
            remedy: None,
            unsent: false,
            detail: detail.into(),
        }
    }

    /// What to change before the call is made once more.
    pub fn remedy(&self) -> Option<Remedy> {
        self.remedy.or((self.class == ErrorClass::ContextLength).then_some(Remedy::LessHistory))
    }

    /// What it says about the endpoint. A request that was refused for what it is, or a fault the provider has by itself
    /// found to be final, says nothing.
    pub fn verdict(&self) -> Verdict {
        let about_request = self.status.is_some_and(|status| (400..500).contains(&status));
        if about_request || self.should_retry == Some(false) { Verdict::Neutral } else { self.class.verdict() }
    }

    /// May the same call succeed when made again?
    pub fn retryable(&self) -> bool {
        self.should_retry.unwrap_or(self.class.retryable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_alternate_and_the_user_begins() {
        let (user, assistant) = (PromptTurn::user, PromptTurn::assistant);
        let turns =
            vec![assistant("hello"), user("a"), user(" "), user("b"), assistant("c"), assistant("d"), user("e")];
        let prompt = Prompt { turns, ..Prompt::default() };
        assert_eq!(prompt.alternating(), [user("a\n\nb"), assistant("c\n\nd"), user("e")]);
        assert_eq!(prompt.question(), "e");
        assert_eq!(Prompt::default().alternating(), []);
    }

    #[test]
    fn pictures_stay_with_the_user_and_leave_no_empty_text() {
        let image =
            |name: &'static str| Image { media_type: "image/png".into(), data: Bytes::from_static(name.as_bytes()) };
        let with = |turn: PromptTurn, name| PromptTurn { images: vec![image(name)], ..turn };
        let (user, assistant) = (PromptTurn::user, PromptTurn::assistant);
        let turns = vec![
            with(user(" "), "a"),
            with(user("b"), "b"),
            with(assistant("c"), "c"),
            with(assistant(""), "d"),
            user("e"),
            with(user("\n"), "f"),
        ];
        let prompt = Prompt { turns, ..Prompt::default() };
        let first = PromptTurn { images: vec![image("a"), image("b")], ..user("b") };
        assert_eq!(prompt.alternating(), [first, assistant("c"), with(user("e"), "f")]);
        assert_eq!(prompt.question_images(), [image("f")]);
    }

    #[test]
    fn an_explicit_word_on_retrying_overrides_the_class() {
        let error = ProviderError::new(ErrorClass::Overloaded, "busy");
        assert!(error.retryable());
        assert!(!ProviderError { should_retry: Some(false), ..error.clone() }.retryable());
        assert_eq!(ProviderError { status: Some(503), ..error }.to_string(), "Overloaded (HTTP 503): busy");
    }
}
