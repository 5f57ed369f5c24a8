//! Language models. [`Provider`] is the seam: one implementation per wire protocol, each turning a [`Prompt`] into a
//! stream of [`Chunk`]s. What surrounds calls is in [`answer`]: limits, further tries, other models, and the account that is
//! kept of each. A provider makes one request for each call, no more.
//!
//! To add a provider: a module with `wire` (the JSON), `stream` (events to chunks, tested at every byte split) and `mod`
//! (the requests), a variant of [`config::Kind`], and a line in [`catalog`].

use std::sync::Arc;

use async_trait::async_trait;

use crate::session::entry::FinishReason;

pub mod answer;
pub mod anthropic;
pub mod catalog;
pub mod config;
pub mod conversation;
pub mod demo;
pub mod dify;
pub mod endpoint;
mod error;
pub mod http;
pub mod meter;
pub mod openai;
pub mod price;
mod prompt;
pub mod retry;
pub mod sse;
mod stream;
pub mod tokens;

pub use error::{ErrorClass, ProviderError, Remedy};
pub use prompt::{Image, Prompt, PromptRole, PromptTurn};

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
