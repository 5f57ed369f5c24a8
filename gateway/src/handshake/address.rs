//! The address of a client. X-Forwarded-For is used from trusted proxies only and read from its end: every proxy appends
//! the address that it saw, so everything before the last untrusted address may be forged.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

/// The header to which each proxy appends the address of its client.
pub(super) const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies whose X-Forwarded-For is used.
#[derive(Debug, Clone, Default)]
pub(super) struct TrustedProxies(pub(super) Vec<IpNet>);

impl TrustedProxies {
    /// The address of the client behind the trusted proxies; without such a proxy the address of the peer.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let values: Vec<&[u8]> = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
        let mut hops = values.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
        while self.trusts(client) {
            match hops.next().and_then(address) {
                Some(before) => client = before.to_canonical(),
                None => break,
            }
        }
        client
    }

    /// Whether an address is a trusted proxy.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Parses an address as proxies write it: `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1` or
/// `[2001:db8::1]:4711`.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let proxies = ["10.0.0.0/8", "fd00::/8"].iter().map(|network| network.parse().expect("network")).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).expect("value"));
        }
        TrustedProxies(proxies).client(peer.parse().expect("peer"), &headers).to_string()
    }

    #[test]
    fn an_untrusted_peer_cannot_set_its_address() {
        assert_eq!(client("192.0.2.9", &["198.51.100.1"]), "192.0.2.9");
        assert_eq!(client("::ffff:192.0.2.9", &["198.51.100.1"]), "192.0.2.9");
    }

    #[test]
    fn the_last_untrusted_address_is_the_client() {
        for (forwarded, expected) in [
            (&["198.51.100.1"][..], "198.51.100.1"),
            (&["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            (&["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            (&["1.1.1.1", "198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            (&["198.51.100.1:4711"], "198.51.100.1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["198.51.100.1, unknown"], "10.0.0.1"),
            (&["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["\u{e9}, 198.51.100.1"], "198.51.100.1"),
            (&["198.51.100.1, \u{e9}, 10.0.0.2"], "10.0.0.2"),
            (&[""], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", forwarded), expected, "{forwarded:?}");
            assert_eq!(client("::ffff:10.0.0.1", forwarded), expected, "{forwarded:?}");
        }
    }

    proptest! {
        /// What a client writes before the address that the proxy appended has no effect.
        #[test]
        fn forged_addresses_have_no_effect(forged in "[ -~]{0,60}") {
            prop_assert_eq!(client("10.0.0.1", &[&format!("{forged}, 198.51.100.1")]), "198.51.100.1");
        }
    }
}
