//! The double against real clients: every behaviour, byte for byte.

mod drive;
