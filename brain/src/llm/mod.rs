//! Language models: which ones there are, how they are called, what they answer.
//!
//! [`Provider`] is the seam, with one implementation per protocol. [`answer`] surrounds the calls of one answer with time
//! limits, retries, fallback models and the ledger. A provider makes one request per call and nothing more.
//!
//! To add a kind of provider:
//!
//! 1. [`kind::Kind`]: its name in the settings and in the ledger.
//! 2. A module with `wire` (the JSON), `stream` (events to chunks, tested at every byte split) and `mod` (the requests).
//! 3. `config/model.rs`: its address and the path of its requests. `config/check.rs`: which settings it takes.
//! 4. `catalog/builder.rs`: builds it. `tokens.rs`: how its tokens are counted. `conversation.rs`: what prompt it gets.
//! 5. `default.toml`: its settings.
//! 6. The fake provider, `tests/src/provider/dialect/`: its protocol, with presets for its faults, and the tests of
//!    `docs/answers.md` over them.

pub mod answer;
pub mod catalog;
pub mod config;
pub mod conversation;
pub mod model;

pub mod meter;
pub mod retry;

pub mod anthropic;
pub mod demo;
pub mod dify;
pub mod openai;

pub mod http;
mod stream;

pub mod sse;
pub mod tokens;

mod provider;

mod error;

pub mod endpoint;

pub mod kind;
mod prompt;

pub use error::{ErrorClass, ProviderError, Remedy};
pub use prompt::{Image, Prompt, PromptRole, PromptTurn};
pub use provider::{Chunk, Generation, Provider, SharedProvider};
