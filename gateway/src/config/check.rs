//! Checks that several sections share.

use std::fmt::Display;

use chatbox_shared::config::ConfigErrors;

/// Reports a value outside of `least..=most`.
pub(super) fn within<T: PartialOrd + Display>(faults: &mut ConfigErrors, key: &str, value: T, least: T, most: T) {
    let is_within = value >= least && value <= most;
    faults.ensure(is_within, key, format!("must be from {least} to {most}, but is {value}"));
}

/// Whether a text has only ASCII letters, digits and the characters in `also`.
pub(super) fn is_plain(text: &str, also: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}
