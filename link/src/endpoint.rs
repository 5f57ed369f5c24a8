//! Where brains are: an endpoint as it is configured, and the socket addresses it resolves to.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tonic::transport::{ClientTlsConfig, Endpoint};
use url::Url;

/// The interval of HTTP/2 pings.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// A link whose ping is not answered within this time is lost. Interval and timeout together stay below the five
/// seconds after which a dead brain must be noticed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// The flow-control window in bytes, of the HTTP/2 connection and of its only stream.
const WINDOW: u32 = 4 << 20;

/// A configured endpoint: `http://host:port`, or `https://host:port` for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrainEndpoint {
    tls: bool,
    host: String,
    port: u16,
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// The text has no scheme, such as `brain:50051`.
    #[error("{0:?} has no scheme: write http://{0} (or https://{0} with link.tls)")]
    NoScheme(String),
    /// The text has another form.
    #[error("{0:?} is not an endpoint: it must be http://host:port or https://host:port, without path and user")]
    Form(String),
}

impl FromStr for BrainEndpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        if !text.contains("://") && Url::parse(&format!("http://{text}")).is_ok() {
            return Err(InvalidEndpoint::NoScheme(text.to_owned()));
        }
        let form = || InvalidEndpoint::Form(text.to_owned());
        let url = Url::parse(text).map_err(|_| form())?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(form()),
        };
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        let host = url.host_str().filter(|_| bare && url.password().is_none()).ok_or_else(form)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().ok_or_else(form)?;
        Ok(Self { tls, host, port })
    }
}

impl BrainEndpoint {
    /// Whether the endpoint uses TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The current addresses of the endpoint.
    pub(crate) async fn resolve(&self) -> std::io::Result<Vec<Address>> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        Ok(found.map(|at| Address { tls: self.tls, at }).collect())
    }
}

/// The address of one brain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    tls: bool,
    at: SocketAddr,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.at)
    }
}

impl Address {
    /// The settings of a connection to this address.
    pub(crate) fn endpoint(
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
    fn endpoints_are_parsed_strictly() {
        let read = |text: &str| text.parse::<BrainEndpoint>();
        assert_eq!(read("http://brain:50051"), Ok(BrainEndpoint { tls: false, host: "brain".to_owned(), port: 50051 }));
        assert_eq!(read("https://[::1]:1"), Ok(BrainEndpoint { tls: true, host: "::1".to_owned(), port: 1 }));
        for bad in ["", "ftp://brain:1", "http://u:p@brain:1", "http://brain:1/path", "http://brain:1?a=b"] {
            assert_eq!(read(bad), Err(InvalidEndpoint::Form(bad.to_owned())), "{bad}");
        }
        for bare in ["brain:50051", "localhost:50051", "127.0.0.1:50051", "c"] {
            let error = read(bare).expect_err(bare);
            assert!(error.to_string().contains(&format!("write http://{bare}")), "{error}");
        }
    }
}
