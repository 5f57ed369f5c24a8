//! The seam to language models: [`Provider`] makes one call, [`Generation`] is the call under way, [`Chunk`] what it
//! yields. Knows no protocol and no limits.

use std::sync::Arc;

use async_trait::async_trait;

use super::error::ProviderError;
use super::prompt::Prompt;
use crate::usage::{FinishReason, TokenUsage};

/// A service that answers prompts.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Sends the prompt. Makes exactly one request that generates an answer, because the ledger holds one record per call.
    /// Returns when the provider has accepted the request, before the first text.
    ///
    /// # Errors
    /// Any failure before the stream began. [`ProviderError::retryable`] says whether the same call may succeed later,
    /// [`ProviderError::remedy`] what to change first.
    async fn generate(&self, prompt: &Prompt) -> Result<Box<dyn Generation>, ProviderError>;
}

/// A provider shared by all turns.
pub type SharedProvider = Arc<dyn Provider>;

/// A call under way. Dropping it closes the provider's connection.
#[async_trait]
pub trait Generation: Send {
    /// The next chunk; `None` after [`Chunk::Finish`]. A stream that ends without one first yields an error of class
    /// [`Truncated`](super::ErrorClass::Truncated). Cancel safe: dropping the future loses no chunk.
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>>;

    /// Stops the generation: sends the protocol's stop request where there is one, then closes the connection.
    async fn cancel(self: Box<Self>);
}

/// A part of an answer, in the order of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Text to append. Never empty.
    Delta(String),
    /// Text that replaces the whole answer so far (moderation). Readers see a new attempt.
    Replace(String),
    /// The prompt's tokens, reported before the end of the stream. All that is known of a call that is cancelled or
    /// breaks off. A later [`Chunk::Usage`] replaces it.
    InputTokens {
        /// Tokens of the prompt, cached ones included.
        input: u64,
        /// Tokens of the prompt that came from the provider's cache.
        cached: u64,
    },
    /// The usage of the call so far. A later one replaces it.
    Usage(TokenUsage),
    /// The provider's id of this conversation, to be sent with the next prompt.
    Conversation(String),
    /// The end of the answer. No chunk follows.
    Finish(FinishReason),
}
