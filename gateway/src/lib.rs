//! The WebSocket service: everything about connections, nothing about conversations.
//!
//! The modules stand in the order in which a message meets them, and a module imports only modules below it. The way of a
//! message is `listener`, `handshake`, `connection`, and the crate `chatbox_link`; the way of its answer is the crate
//! `chatbox_link`, `registry`, `send_queue`, `connection`.

// The start of the process.
pub mod app;
pub mod config;

// The public surface.
pub mod listener;
pub mod routes;

// One connection, from its request to its end.
pub mod handshake;

pub mod connection;

// All connections, and what waits for each of them.
pub mod registry;
pub mod send_queue;

// The contract with clients.
pub mod frame;

// What every room uses.
pub mod limits;

pub mod error;
pub mod metrics;
mod sabotage;
