//! The address on which a server listens.

use std::net::SocketAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Deserializes an IP address with its port. A host name is an error, because it can stand for several addresses.
///
/// # Errors
/// The text is not an IP address with a port.
pub fn listen_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let example = "127.0.0.1:8080 or [::1]:8080";
        D::Error::custom(format!("{text:?} must be an IP address and a port, such as {example}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Section {
        #[serde(deserialize_with = "listen_address")]
        listen: SocketAddr,
    }

    #[test]
    fn an_ip_address_is_accepted_and_a_name_is_explained() {
        let read = |text: &str| serde_json::from_value::<Section>(serde_json::json!({ "listen": text }));
        assert_eq!(read("[::1]:80").expect("an address").listen.port(), 80);
        for text in ["localhost:80", "127.0.0.1", ""] {
            let error = read(text).expect_err("an error").to_string();
            assert!(error.contains("must be an IP address and a port"), "{text}: {error}");
        }
    }
}
