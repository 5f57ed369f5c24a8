//! The whole of chatbox from the outside: real services as processes, a client that sees every byte, a provider whose
//! bytes the tests write. `cargo build --workspace` first; CHATBOX_MONGOD names a mongod.

mod answers_page;
mod at_rest;
mod by_hand;
mod config;
mod devices;
mod duplicates;
mod examples;
mod failover;
mod failures;
mod frames;
mod handshake;
mod happy;
mod isolation;
mod link_cut;
mod naming;
mod ops;
mod pages;
mod quotas;
mod regenerate;
mod reload;
mod restart;
mod resume;
mod sessions;
mod soak;
mod store_down;
mod streams;
mod takeover;
mod tls;
mod tools;
mod two_brains;
