//! A small language for tests over real processes: start the services, act as their clients, break them, read what they
//! stored. Every wait is bounded, and its error names what did not happen.

pub mod at_rest;
pub mod binaries;
pub mod brains;
pub mod certificates;
pub mod connection;
pub mod conversation;
pub mod frame;
pub mod handshake;
pub mod keys;
pub mod ledger;
pub mod log;
pub mod mask;
pub mod model;
pub mod process;
pub mod proxy;
pub mod raw_http;
pub mod schema;
pub mod settings;
pub mod stack;
pub mod start;
pub mod tokens;
pub mod waits;

pub use connection::{Closed, Connection};
pub use conversation::Conversation;
pub use frame::Frame;
pub use log::SessionLog;
pub use model::Dialect;
pub use stack::Stack;
pub use start::StoreAt;
