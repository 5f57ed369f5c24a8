//! What the tests of chatbox share.

pub mod provider;
