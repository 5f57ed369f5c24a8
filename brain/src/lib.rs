//! The conversation service. It stores the sessions and their messages, decides who may do what, calls the model providers,
//! and sends every change to the gateways whose clients have the session open. It knows no WebSocket and no token: gateways
//! verify tokens and attach over gRPC.
//!
//! # Layout
//!
//! The modules are listed in the order in which a message meets them. A module imports only modules listed below it.
//!
//! - [`app`] builds the service from its [`config`]; [`reload`] replaces the settings that may change while it runs.
//! - [`grpc`] translates requests into the commands of [`service`] and events into frames.
//! - [`service`] authorises and executes commands for a user or an admin.
//! - [`turn`] claims a message, generates its answer, and adopts the answers of brains that died.
//! - [`session`] holds the sessions in memory: it appends entries, replays them, and notifies subscribers.
//! - [`llm`] calls the model providers, with retries, fallbacks and circuit breakers.
//! - [`store`] persists everything, encrypted, in MongoDB or SQLite.
//! - [`ledger`], [`log`] and [`usage`] are plain data: the usage of calls, the entries of a session, tokens.
//!
//! # Main types
//!
//! - [`store::Store`]: the trait of a database. Its module tells how to add one.
//! - [`llm::Provider`]: the trait of a model provider. Its module tells how to add one.
//! - [`session::registry::Sessions`]: the sessions in memory, and [`session::handle::Session`]: one of them.
//! - [`turn::turns::Turns`]: the answers that this brain generates.
//! - [`tunables::LiveConfig`]: the settings that a reload replaces.

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
