//! Budgets: how often an address or a connection may do something, and how many connections the process can hold.

mod address;
mod bucket;
mod capacity;

pub use address::AddressLimiter;
pub use bucket::TokenBucket;
pub use capacity::Capacity;
