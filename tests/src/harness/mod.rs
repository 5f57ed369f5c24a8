//! A small language for tests over real processes: start the stack, speak as its clients do, break it, look at what it
//! stored. Every wait in here is bounded and names what it waited for.

pub mod at_rest;
pub mod binaries;
pub mod brains;
pub mod certificates;
pub mod connection;
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
pub mod settings;
pub mod stack;
pub mod start;
pub mod tokens;
pub mod waits;

pub use connection::{Closed, Connection};
pub use frame::Frame;
pub use log::SessionLog;
pub use model::Dialect;
pub use stack::Stack;
pub use start::StoreAt;
