//! What can be asked of the brain: one function per command, over the [`Context`](context::Context) and the principal who
//! asks. Commands and results are domain types; every edge (the link, later gRPC and HTTP) translates to and from them.
//!
//! [`access`] decides which sessions a principal may use. [`log::state`](crate::log::state) decides what the log of a session
//! allows.

mod access;
mod audit;
pub mod answers;
pub mod context;
pub mod help;
pub mod history;
pub mod messages;
mod models;
pub mod page;
pub mod presence;
pub mod sessions;
pub mod takeover;
mod writing;
