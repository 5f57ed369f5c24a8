//! The conversation service, in the order in which a message meets its parts.

pub mod llm;
pub mod session;
pub mod store;
