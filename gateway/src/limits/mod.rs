//! Budgets: how often an address or a connection may do something, and how many connections the process can hold.

mod address;
mod bucket;
mod capacity;
mod log_budget;
mod slots;

pub use address::AddressLimiter;
pub use bucket::TokenBucket;
pub use capacity::Capacity;
pub use log_budget::LogBudget;
pub use slots::{NoSlot, Slot, Slots};
