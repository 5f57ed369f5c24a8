//! What the tests share: real servers to run against.

pub mod mongod;
