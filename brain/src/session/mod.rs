//! Sessions: the log, its fold, its writer, its readers.

pub mod entry;
