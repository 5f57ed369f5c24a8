//! The conversation service.
//!
//! The modules are listed in the order in which a message meets them, and dependencies point down this list only: [`app`]
//! composes the service; [`grpc`] translates requests to the commands of [`service`]; [`turn`] answers a message that
//! [`session`] has appended; both `service` and `turn` read [`tunables`], sessions do not. [`llm`] calls the models, [`store`]
//! keeps everything. [`ledger`], [`log`], [`metrics`] and [`usage`] are plain data.

pub mod app;
pub mod reload;
pub mod readiness;
pub mod config;
pub mod grpc;
pub mod service;
pub mod turn;
pub mod tunables;
pub mod session;
pub mod llm;
pub mod store;
pub mod ledger;
pub mod log;
pub mod metrics;
pub mod usage;

mod sabotage;
