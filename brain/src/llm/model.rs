//! One model, ready to be called.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::kind::Kind;
use super::provider::SharedProvider;
use super::retry::Policy;
use super::tokens::TokenCounter;
use crate::usage::{Price, TokenUsage};

/// The id of the built-in model, which exists where no model is configured.
pub const DEMO: &str = "demo";

/// A model.
#[derive(Clone)]
pub struct Model {
    /// The id clients use.
    pub id: String,
    /// The name people see.
    pub name: String,
    /// The protocol of its provider.
    pub kind: Kind,
    /// Makes one call, without retries and with no limit but its time limits.
    pub provider: SharedProvider,
    /// The time limits and retries of its calls.
    pub policy: Policy,
    /// The endpoint it is called at, shared by all models with the same protocol and address.
    pub endpoint: Arc<Endpoint>,
    /// The ids of the fallback models, in the order in which they are tried.
    pub fallback: Vec<String>,
    /// The price of its tokens; `None` where none is configured.
    pub price: Option<Price>,
    /// Counts its tokens.
    pub counter: TokenCounter,
    /// The context window in tokens: prompt and answer together.
    pub context_tokens: u64,
    /// The longest answer in tokens.
    pub max_output_tokens: u64,
    /// Instructions before every conversation.
    pub system_prompt: Option<String>,
}

impl Model {
    /// The most tokens a prompt may have; see [`TokenCounter::fit`].
    pub fn prompt_budget(&self) -> u64 {
        self.context_tokens.saturating_sub(self.max_output_tokens)
    }

    /// The cost of this usage in billionths of the currency; `None` where the model has no price.
    pub fn cost(&self, usage: &TokenUsage) -> Option<u64> {
        self.price.map(|price| price.cost(usage))
    }
}
