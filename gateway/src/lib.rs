//! The WebSocket service. Modules in the order in which a message meets them.

pub mod connection;
pub mod limits;
pub mod link;
pub mod metrics;
pub mod roster;
