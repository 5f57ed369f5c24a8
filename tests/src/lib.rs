//! The parts of the end-to-end tests, which run the built services as processes.
//!
//! - [`harness`] starts a stack of brains, gateways and a store, and speaks to it as clients do. [`harness::Stack`] is the
//!   entry point; [`harness::connection::Connection`] is a client that records every frame.
//! - [`provider`] is a fake model provider with the APIs of OpenAI, Anthropic and Dify: [`provider::FakeProvider`] follows a
//!   [`provider::Script`] byte by byte and records each call. The program `mock-llm` serves it alone.
//! - [`mongod`] starts real MongoDB servers. The program `shared-mongod` starts one for a whole test run.
//! - [`load`] is the load generator, with a program of the same name.
//!
//! The tests are in `tests/e2e`. They run the programs that `cargo build` made and build nothing.

pub mod harness;
pub mod load;
pub mod mongod;
pub mod provider;
