//! The conversation service, in the order in which a message meets its parts.

pub mod app;
pub mod config;
pub mod connection;
pub mod connections;
pub mod grpc;
pub mod ledger;
pub mod llm;
pub mod metrics;
pub mod reload;
mod sabotage;
pub mod session;
pub mod store;
pub mod tunables;
pub mod turn;
pub mod usage;
