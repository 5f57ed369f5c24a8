//! The JSON contract with clients in both directions: `docs/protocol.md` sections 2 and 5 to 7 as code. This room knows no
//! socket and no connection.
//!
//! Client frames are read strictly: a frame outside the contract is rejected, and the error names the field. Server
//! frames may gain fields and types, but existing ones never change.

mod client;
mod control;
mod entry;
mod fields;
mod json;
mod scalars;
mod server;
mod session;

pub use client::{ClientFrame, ClientRequest, InvalidFrame, MAX_ID_CHARS, MAX_PAGE, parse, request_id};
pub use control::{Welcome, WelcomeLimits, ack, error, notice, pong};
pub use json::{MAX_DEPTH, MAX_NUMBER};
pub use server::encode;
pub(crate) use server::encode_delta;
