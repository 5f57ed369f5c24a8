//! The WebSocket service. Modules in the order in which a message meets them.

pub mod limits;
pub mod metrics;
