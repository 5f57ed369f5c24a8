//! The providers over real sockets: as the brain calls them, with pictures, and with each known fault of the wire.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod every_provider;
mod pictures;
mod pitfalls;

mod support;
