//! Sessions in use on this brain. A write goes through [`append`]; a subscriber joins by [`replay`] and then gets the events
//! that [`live`] publishes. [`registry`] holds the sessions; [`reconcile`] keeps them equal to the store.

pub mod append;
pub mod audience;
pub mod catch_up;
pub mod clock;
pub mod erase;
pub mod event;
pub(crate) mod failures;
pub mod handle;
pub mod live;
pub mod name;
pub mod reconcile;
pub mod registry;
pub mod replay;
pub mod summary;
mod unknown_outcome;
pub mod usage;
pub mod view;
