//! The WebSocket service. It accepts connections of browsers and other clients, verifies their tokens, and forwards each
//! frame to a brain and each event of a brain to the clients. It owns everything about connections and knows nothing about
//! conversations: it has no database and never sees the key of a model provider.
//!
//! # Layout
//!
//! A message passes these modules in this order: [`listener`] accepts the socket, [`handshake`] checks the request,
//! [`connection`] reads the frame, [`frame`] parses its JSON, and the crate `chatbox_link` sends it to the brain of the user.
//! The answer returns through `chatbox_link`, the [`registry`] of connections, the [`send_queue`] of each connection, and the
//! writer in [`connection`].
//!
//! # Main types
//!
//! - [`app`]: builds the service from its [`config`] and runs it until it has drained.
//! - [`registry`]: all connections of this process. It receives what the brains send.
//! - [`send_queue`]: the bounded queue of one connection. A client that reads too slowly is closed with code 4008.
//! - [`limits`], [`metrics`], [`error`]: used by all modules.
//!
//! A module imports only modules listed below it.

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
