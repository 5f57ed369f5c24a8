//! Language models: which ones there are, how they are called, what they answer.
//!
//! [`Provider`] is the seam, with one implementation per protocol. [`answer`] surrounds the calls of one answer with time
//! limits, retries, fallback models and the ledger. A provider makes one request per call and nothing more.
//!
//! To add a provider: add a [`kind::Kind`], a module with `wire` (the JSON), `stream` (events to chunks, tested at every
//! byte split) and `mod` (the requests), and build it in `catalog/builder.rs`.

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
