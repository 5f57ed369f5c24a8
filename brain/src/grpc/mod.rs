//! The brain's gRPC side: the link to the gateways.

pub mod convert;
pub mod link;
pub mod outbox;
