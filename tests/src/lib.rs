//! The parts of the tests over real processes: the services as child processes, a client that sees every frame, a fake model
//! provider, database servers; and the load generator.

pub mod harness;
pub mod load;
pub mod mongod;
pub mod provider;
