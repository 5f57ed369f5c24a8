//! What the gateway and the brain have in common. Nothing here knows a WebSocket or a conversation.

pub mod auth;
pub mod clock;
pub mod config;
pub mod failure;
pub mod ids;
pub mod lifecycle;
pub mod ops;
pub mod proto;
pub mod telemetry;
pub mod tls;
