//! The WebSocket service: everything about connections, nothing about conversations.
//! A message meets `listener`, `handshake`, `connection`, `link`; its answer `link`, `roster`, `connection`.

pub mod app;
pub mod capacity;
pub mod config;
pub mod connection;
pub mod error;
pub mod handshake;
pub mod limits;
pub mod link;
pub mod listener;
pub mod metrics;
pub mod roster;
pub mod routes;
mod sabotage;
