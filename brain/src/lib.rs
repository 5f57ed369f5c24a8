//! The conversation service, in the order in which a message meets its parts.

pub mod app;
pub mod config;
pub mod grpc;
pub mod connection;
pub mod connections;
pub mod session;
pub mod turn;
pub mod llm;
pub mod store;
pub mod metrics;
