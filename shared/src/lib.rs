//! What the gateway and the brain have in common: [`program`] (start and exit code), [`auth`] (tokens), [`ops`] (health,
//! readiness, metrics), [`tls`], [`telemetry`] (logs), [`config`], [`failure`] (errors that clients see), the [`lifecycle`]
//! of a process, and ids.
//!
//! Nothing here knows a WebSocket or a conversation. Each module imports only modules listed below it.

pub mod program;
pub mod auth;
pub mod ops;
pub mod tls;
pub mod telemetry;
pub mod config;
pub mod failure;
pub mod proto;
pub mod lifecycle;
pub mod clock;
pub mod ids;
pub mod one_line;
