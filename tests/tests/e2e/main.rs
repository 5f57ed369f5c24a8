//! The whole of chatbox from the outside: real services as processes, a client that sees every byte, a provider whose
//! bytes the tests write. `cargo build --workspace` first; CHATBOX_MONGOD names a mongod where none is on the PATH.

mod config;
mod frames;
mod handshake;
mod isolation;
mod sessions;
mod smoke;
