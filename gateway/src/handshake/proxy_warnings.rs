//! Warnings about a reverse proxy that is not configured as one. Without `security.trusted_proxies` all clients behind a
//! proxy count as one address, and the limit on handshakes per address rejects them together. Each warning is logged
//! once, because every handshake would repeat it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use http::header::FORWARDED;

use super::address::X_FORWARDED_FOR;

/// Which warnings were logged.
#[derive(Debug, Default)]
pub(super) struct ProxyWarnings {
    untrusted: AtomicBool,
    limited: AtomicBool,
}

impl ProxyWarnings {
    /// A handshake came from a peer that is not a trusted proxy. Warns if a proxy has added its header.
    pub(super) fn untrusted_peer(&self, peer: IpAddr, headers: &HeaderMap) {
        let forwarded = headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED);
        if forwarded && first(&self.untrusted) {
            tracing::warn!(
                %peer,
                "a handshake carries X-Forwarded-For or Forwarded, but its sender is not a trusted proxy; all clients \
                 behind that proxy count as one address. If this is your proxy, add its address to \
                 security.trusted_proxies and let it set X-Forwarded-For"
            );
        }
    }

    /// The limit on handshakes per address has rejected a client. Warns if the address may be that of a proxy.
    pub(super) fn limited(&self, client: IpAddr) {
        if is_internal(client) && first(&self.limited) {
            tracing::warn!(
                %client,
                "limits.handshakes_per_minute has rejected a loopback or private address. If this is your reverse \
                 proxy, add its address to security.trusted_proxies and let it set X-Forwarded-For; otherwise raise \
                 limits.handshakes_per_minute and limits.handshake_burst"
            );
        }
    }
}

/// Sets a flag. Returns whether it was not set before.
fn first(logged: &AtomicBool) -> bool {
    !logged.load(Ordering::Relaxed) && !logged.swap(true, Ordering::Relaxed)
}

/// Whether an address is a loopback, private or link-local address.
fn is_internal(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use super::*;
    use http::HeaderValue;
    use parking_lot::Mutex;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `work` logs.
    fn logged(work: impl FnOnce()) -> Vec<String> {
        let output = Output::default();
        let writer = output.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, work);
        let bytes = output.0.lock().clone();
        String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
    }

    fn headers(name: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static("198.51.100.1"));
        headers
    }

    #[test]
    fn an_untrusted_proxy_is_reported_once() {
        let peer = "192.0.2.9".parse().expect("address");
        for name in ["x-forwarded-for", "forwarded"] {
            let warnings = ProxyWarnings::default();
            let lines = logged(|| {
                warnings.untrusted_peer(peer, &HeaderMap::new());
                warnings.untrusted_peer(peer, &headers(name));
                warnings.untrusted_peer(peer, &headers(name));
            });
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].contains("WARN") && lines[0].contains("security.trusted_proxies"), "{lines:?}");
            assert!(lines[0].contains("192.0.2.9"), "{lines:?}");
        }
    }

    #[test]
    fn a_limited_internal_address_is_reported_once_and_a_public_one_never() {
        let warnings = ProxyWarnings::default();
        let limited = |address: &str| warnings.limited(address.parse().expect("address"));
        let lines = logged(|| {
            for address in ["198.51.100.1", "2001:db8::1", "10.0.0.1", "::ffff:127.0.0.1", "fd00::1"] {
                limited(address);
            }
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("10.0.0.1") && lines[0].contains("security.trusted_proxies"), "{lines:?}");
    }
}
