//! What the tests over real processes are made of: a provider whose bytes a test controls, a database server.

pub mod mongod;
pub mod provider;
