//! The brain's gRPC edge: the link to the gateways. Protobuf ends here. A request goes [`link`] → [`gateway`] → [`dispatch`] →
//! `service`, and its reply comes back through the [`send_queue`] of the link, as do the events of the sessions that a
//! [`connection`] follows.

pub mod connection;
pub mod connections;
mod convert;
mod cursor;
mod dispatch;
mod encode;
mod follow;
mod following;
pub mod gateway;
pub mod kick;
pub mod link;
mod panic_guard;
pub mod parts;
pub mod send_queue;

#[cfg(test)]
mod tests;
