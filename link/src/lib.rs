//! The client half of the link: one multiplexed gRPC stream to each brain, kept up for as long as the process runs.
//!
//! [`start`] resolves the endpoints of the brains and keeps a link to each. [`Links`] chooses the brain of a user.
//! [`Uplink`] is the way of one connection to its brain, also across a lost link. Frames from the brains go to
//! [`LinkEvents`], which the process that holds the connections implements. This crate knows no socket of a client and no
//! content of a conversation.

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
