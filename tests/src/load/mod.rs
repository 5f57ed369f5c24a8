//! Measurements over the real services: memory per connection, delay of a delta, durable acknowledgements.

pub mod acks;
pub mod client;
pub mod connections;
pub mod deltas;
pub mod floor;
pub mod report;
