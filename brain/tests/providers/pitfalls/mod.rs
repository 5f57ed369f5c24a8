//! What is known to go wrong on the wire: one test for each row of our tables of the protocols, named after it, through
//! real sockets and with exact bytes.

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
