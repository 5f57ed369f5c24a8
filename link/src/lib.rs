//! The client half of the link: one multiplexed gRPC stream from a gateway to each brain. This crate knows no client socket
//! and no content of a conversation.
//!
//! # Layout
//!
//! [`start`] resolves the addresses of the brains again and again (`pool`) and keeps one link to each address
//! (`supervisor`, `client`). A lost link is connected again with a growing delay. A draining brain keeps its link until its
//! connections have moved to other brains.
//!
//! # Main types
//!
//! - [`Links`]: the links that are ready. It chooses the brain of a user by [`rendezvous`] hashing.
//! - [`Uplink`]: the path of one client connection to its brain. After a lost link it attaches the connection to another
//!   brain and sends the requests without a reply again.
//! - [`LinkEvents`]: what the gateway implements to receive the frames of the brains.
//! - [`BrainEndpoint`]: a configured address of brains, and [`LinkSettings`]: the timeouts.
//! - [`LinkMetrics`]: the counters of the links.
//!
//! A module imports only modules listed below it.

// Finding brains and keeping the links up.
mod pool;
mod supervisor;

mod client;

// The way of one connection.
mod uplink;

// Which links there are.
mod links;

mod endpoint;
mod events;
mod link;
mod metrics;
pub mod rendezvous;

#[cfg(any(test, feature = "fake"))]
pub mod fake;

pub use endpoint::{BrainEndpoint, InvalidEndpoint};
pub use events::LinkEvents;
pub use links::{BrainInfo, Links};
pub use metrics::LinkMetrics;
pub use pool::{LinkSettings, start};
pub use uplink::{Rebound, Uplink, UplinkMessage, UplinkSource};

#[cfg(test)]
mod tests;
