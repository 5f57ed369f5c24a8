//! Checks of single settings that both services use. Each service decides which of its keys a check applies to.

use std::fmt::Display;
use std::net::SocketAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::errors::ConfigErrors;

/// Reads the address of a listener, for `#[serde(deserialize_with)]`. Host names are rejected, because a name can stand for
/// several addresses.
///
/// # Errors
/// If the text is not an IP address and a port.
pub fn listen_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let example = "127.0.0.1:8080 or [::1]:8080";
        D::Error::custom(format!("{text:?} must be an IP address and a port, such as {example}"))
    })
}

/// Whether two listeners cannot be bound to these addresses at the same time. Port 0 stands for any free port, and an
/// unspecified IP address for every IP address.
pub fn same_address(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_ip
}

/// Reports a value outside of `least..=most`.
pub fn within<T: PartialOrd + Display>(errors: &mut ConfigErrors, key: &str, value: T, least: T, most: T) {
    let is_within = value >= least && value <= most;
    errors.ensure(is_within, key, format!("must be from {least} to {most}, but is {value}"));
}

/// Reports a name of a process that cannot stand in metrics and logs. An empty name is valid: the service generates one.
pub fn process_name(errors: &mut ConfigErrors, key: &str, name: &str) {
    let valid = name.len() <= 64 && is_plain(name, "._-");
    errors.ensure(valid, key, "must have at most 64 letters, digits and . _ -");
}

/// Whether a text has only ASCII letters, digits and the characters in `also`.
pub fn is_plain(text: &str, also: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_same_if_only_one_of_them_can_be_bound() {
        for (a, b, same) in [
            ("127.0.0.1:9090", "127.0.0.1:9090", true),
            ("0.0.0.0:9090", "127.0.0.1:9090", true),
            ("127.0.0.1:9090", "[::]:9090", true),
            ("127.0.0.2:9090", "127.0.0.1:9090", false),
            ("127.0.0.1:9090", "127.0.0.1:9091", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(same_address(a.parse().unwrap(), b.parse().unwrap()), same, "{a} {b}");
        }
    }
}
