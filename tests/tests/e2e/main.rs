//! End-to-end tests: the real services as processes, clients that check every frame, a fake model provider. They need
//! `cargo build --workspace --bins`, and `CHATBOX_MONGOD` must name a mongod.

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
mod majority;
mod naming;
mod ops;
mod pages;
mod quotas;
mod regenerate;
mod reload;
mod restart;
mod resume;
mod sabotage;
mod sessions;
mod soak;
mod store_down;
mod streams;
mod takeover;
mod tls;
mod tools;
mod two_brains;
