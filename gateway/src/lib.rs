//! The WebSocket service: everything about connections, nothing about conversations. Modules in the order in which a
//! message meets them.

pub mod config;
pub mod connection;
pub mod error;
pub mod handshake;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod routes;
