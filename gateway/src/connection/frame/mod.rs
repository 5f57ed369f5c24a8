//! The JSON contract with clients, both ways: docs/protocol.md §3 and §4 in code. Knows no socket and no connection.
//!
//! Clients are read strictly: what is not in the contract is refused, naming the field. Servers only ever add, so what
//! is written here may grow but never change.

mod client;
mod control;
mod entry;
mod fields;
mod server;

pub use client::{Frame, Refused, Request, parse};
pub use control::{Limits, Welcome, ack, error, notice, pong};
pub use server::encode;
pub(crate) use server::encode_delta;

/// Deepest nesting of a client frame, the frame itself counted.
pub const MAX_DEPTH: u32 = 32;
/// Longest `id` of a request, in characters.
pub const MAX_ID_CHARS: usize = 64;
/// Largest page of a list.
pub const MAX_PAGE: u64 = 100;
/// Largest number: what a double, and so JavaScript, can count to without a gap.
pub const MAX_NUMBER: u64 = 1 << 53;
