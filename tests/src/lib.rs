//! What the tests over real processes are made of: the services as child processes, a raw client, a provider whose bytes
//! a test controls, and a database server.

pub mod harness;
