//! The client side of the WebSocket protocol of docs/protocol.md: a [`Log`] is a copy of one session's log, built from
//! [`ServerFrame`]s; [`Disconnect`] and [`backoff`] decide when to connect again.
//!
//! This crate opens no socket and prints nothing.

mod log;
mod frame;
mod reconnect;

pub use frame::{Delta, Entry, EntryError, EntryState, Person, Role, ServerFrame, Session, Usage, Welcome};
pub use log::{Change, Log};
pub use reconnect::{Disconnect, backoff};
