//! The whole of chatbox from the outside: real services as processes, a client that sees every byte, a provider whose
//! bytes the tests write. `cargo build --workspace` first; CHATBOX_MONGOD names a mongod.
#![expect(clippy::large_futures, reason = "each test is one future and runs once")]

mod at_rest;
mod config;
mod devices;
mod duplicates;
mod frames;
mod handshake;
mod isolation;
mod restart;
mod resume;
mod sessions;
mod smoke;
mod store_down;
