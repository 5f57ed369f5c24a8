//! A session's log: what its entries are ([`entry`]), and what follows from them ([`state`]). Plain data and pure functions;
//! imports nothing of the brain but `usage`.

pub mod entry;
pub mod state;
