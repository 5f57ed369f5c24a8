//! What the tests over real processes are made of: the services as child processes, a raw client, a provider whose bytes
//! a test controls, a database server; and the load generator.

pub mod harness;
pub mod load;
pub mod mongod;
pub mod provider;
