//! Known problems of the providers' protocols: one test for each, with exact bytes over real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

#[path = "../support/mod.rs"]
mod support;
mod wire;

mod anthropic;
mod compatible;
mod dify;
mod openai;
mod retry_after;
mod sse;
