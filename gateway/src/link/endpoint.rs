//! Where brains are: an address as it was configured, and the socket addresses it stands for at the moment.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tonic::transport::{ClientTlsConfig, Endpoint};
use url::Url;

/// A peer that does not answer an HTTP/2 ping sent this often …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// … within this time is gone. Together well below the five seconds after which a dead peer must be known.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// One stream carries everything, so its window is that of the connection.
const WINDOW: u32 = 4 << 20;

/// A configured address: `http://host:port`, or `https://host:port` for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrainEndpoint {
    tls: bool,
    host: String,
    port: u16,
}

/// A text that is no address of a brain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be http://host:port or https://host:port")]
pub struct BadEndpoint;

impl FromStr for BrainEndpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let url = Url::parse(text).map_err(|_| BadEndpoint)?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(BadEndpoint),
        };
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        let host = url.host_str().filter(|_| bare && url.password().is_none()).ok_or(BadEndpoint)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().ok_or(BadEndpoint)?;
        Ok(Self { tls, host, port })
    }
}

impl BrainEndpoint {
    /// Does it ask for TLS?
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The addresses it stands for now.
    pub(super) async fn resolve(&self) -> std::io::Result<Vec<Address>> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        Ok(found.map(|at| Address { tls: self.tls, at }).collect())
    }
}

/// One brain's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    tls: bool,
    at: SocketAddr,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.at)
    }
}

impl Address {
    /// How to connect to it.
    pub(super) fn endpoint(
        &self,
        tls: Option<&ClientTlsConfig>,
        connect_timeout: Duration,
    ) -> Result<Endpoint, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(self.to_string())?
            .connect_timeout(connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        match tls.filter(|_| self.tls) {
            Some(tls) => endpoint.tls_config(tls.clone()),
            None => Ok(endpoint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        let read = |text: &str| text.parse::<BrainEndpoint>();
        assert_eq!(read("http://brain:50051"), Ok(BrainEndpoint { tls: false, host: "brain".to_owned(), port: 50051 }));
        assert_eq!(read("https://[::1]:1"), Ok(BrainEndpoint { tls: true, host: "::1".to_owned(), port: 1 }));
        for bad in
            ["", "brain:50051", "ftp://brain:1", "http://u:p@brain:1", "http://brain:1/path", "http://brain:1?a=b"]
        {
            assert_eq!(read(bad), Err(BadEndpoint), "{bad}");
        }
    }
}
