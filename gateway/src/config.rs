//! The settings of the gateway: the sections of `default.toml`, typed and checked.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use chatbox_shared::auth::{self, JwksSource, MIN_JWKS_INTERVAL, Rules};
use chatbox_shared::config::{ConfigErrors, Settings};
use chatbox_shared::ops::OpsSettings;
use chatbox_shared::telemetry::LogSettings;
use chatbox_shared::tls::TlsSettings;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use crate::handshake::origin;
use crate::link::BrainEndpoint;

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySettings {
    /// The process as a whole.
    pub gateway: Gateway,
    /// The operations port.
    pub ops: OpsSettings,
    /// Where the brains are.
    pub brain: Brain,
    /// How the link to them is protected.
    pub link: Link,
    /// Who may connect from where.
    pub security: Security,
    /// Tokens.
    pub auth: Auth,
    /// Sizes, rates, times.
    pub limits: Limits,
    /// How lost clients are noticed.
    pub heartbeat: Heartbeat,
    /// The drain.
    pub shutdown: Shutdown,
    /// Log lines.
    pub log: LogSettings,
}

/// `[gateway]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Address for clients.
    pub listen: SocketAddr,
    /// What every public path begins with: empty, or `/…` without a slash at its end.
    pub path_prefix: String,
    /// This process's name; empty for a random one.
    pub id: String,
}

/// `[brain]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brain {
    /// `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// Milliseconds between two look-ups of the names.
    pub resolve_interval_ms: u64,
    /// Milliseconds a connection attempt may take.
    pub connect_timeout_ms: u64,
}

/// `[link]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Plaintext.
    pub insecure: bool,
    /// Mutual TLS.
    pub tls: TlsSettings,
}

/// `[security]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    /// Origins that may connect; none: the own host's only.
    pub allowed_origins: Vec<origin::Rule>,
    /// Refuse requests without an Origin.
    pub require_origin: bool,
    /// Accept the rule `*`.
    pub insecure_any_origin: bool,
    /// Whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<Network>,
}

/// `[auth]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The HS256 secret, from the environment or its file.
    #[serde(default)]
    pub hs256_secret: Option<SecretString>,
    /// The file holding it; read while the settings are loaded.
    pub hs256_secret_file: String,
    /// A JWKS document on disk.
    pub jwks_file: String,
    /// A JWKS document on the network.
    pub jwks_url: String,
    /// Seconds between two reads of the JWKS.
    pub jwks_refresh_seconds: u64,
    /// What `iss` must be, where not empty.
    pub issuer: String,
    /// What `aud` must contain, where not empty.
    pub audience: String,
    /// Take `?token=` too.
    pub allow_query_token: bool,
    /// How far clocks may differ.
    pub leeway_seconds: u64,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// WebSocket connections at once; 0: what the limit on open files allows.
    pub max_connections: usize,
    /// Handshakes of one address in a minute.
    pub handshakes_per_minute: u32,
    /// Handshakes of one address at once.
    pub handshake_burst: u32,
    /// Longest frame and message from a client.
    pub max_frame_bytes: usize,
    /// Invalid requests of one connection in a minute.
    pub max_invalid_frames: u32,
    /// Requests of one connection in a second.
    pub requests_per_second: u32,
    /// Requests of one connection at once.
    pub request_burst: u32,
    /// Requests of one connection without a reply.
    pub max_in_flight: usize,
    /// Bytes waiting for one socket.
    pub outbound_queue_bytes: usize,
    /// Milliseconds the head of a request may take.
    pub header_timeout_ms: u64,
    /// Longest head of a request.
    pub max_header_bytes: usize,
    /// Headers in one request.
    pub max_headers: usize,
}

/// `[heartbeat]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Milliseconds between two pings.
    pub interval_ms: u64,
}

/// `[shutdown]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// Seconds over which the connections are closed.
    pub drain_seconds: u64,
}

/// An address range, or one address, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(pub IpNet);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| format!("{text:?} is no address range such as 10.0.0.0/8 and no address"))
    }
}

impl Settings for GatewaySettings {
    const DEFAULTS: &'static str = include_str!("../default.toml");
    const SECRETS: &'static [&'static str] = &["auth.hs256_secret"];

    fn validate(&self, faults: &mut ConfigErrors) {
        self.gateway.validate(faults);
        self.brain.validate(self.link.tls.is_set(), faults);
        self.link.validate(faults);
        self.security.validate(faults);
        self.auth.validate(faults);
        self.limits.validate(faults);
        within(faults, "heartbeat.interval_ms", self.heartbeat.interval_ms, 100, 300_000);
        within(faults, "shutdown.drain_seconds", self.shutdown.drain_seconds, 0, 3600);
        self.log.validate(faults);
    }
}

fn within<T: PartialOrd + std::fmt::Display>(faults: &mut ConfigErrors, key: &str, value: T, least: T, most: T) {
    let ok = value >= least && value <= most;
    faults.ensure(ok, key, format!("{value} is not within {least} and {most}"));
}

/// Letters, digits and these: what needs no quoting in an address.
fn is_plain(text: &str, also: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

impl Gateway {
    fn validate(&self, faults: &mut ConfigErrors) {
        let prefix = &self.path_prefix;
        let ok = prefix.is_empty()
            || (prefix.starts_with('/')
                && !prefix.ends_with('/')
                && !prefix.contains("//")
                && is_plain(prefix, "/._~-"));
        let reason = "must be empty or begin with \"/\", not end with it, and hold only letters, digits and ._~-";
        faults.ensure(ok, "gateway.path_prefix", reason);
        let ok = self.id.len() <= 64 && is_plain(&self.id, "._-");
        faults.ensure(ok, "gateway.id", "at most 64 letters, digits and ._-");
    }
}

impl Brain {
    fn validate(&self, tls: bool, faults: &mut ConfigErrors) {
        faults.ensure(!self.endpoints.is_empty(), "brain.endpoints", "at least one address is needed");
        for (n, endpoint) in self.endpoints.iter().enumerate() {
            let key = format!("brain.endpoints.{n}");
            match endpoint.parse::<BrainEndpoint>() {
                Ok(endpoint) if endpoint.is_tls() && !tls => faults.add(key, "https:// needs link.tls"),
                Ok(endpoint) if !endpoint.is_tls() && tls => faults.add(key, "must be https://, since link.tls is set"),
                Ok(_) => {}
                Err(error) => faults.add(key, error),
            }
        }
        within(faults, "brain.resolve_interval_ms", self.resolve_interval_ms, 100, 600_000);
        within(faults, "brain.connect_timeout_ms", self.connect_timeout_ms, 100, 60_000);
    }
}

impl Link {
    fn validate(&self, faults: &mut ConfigErrors) {
        self.tls.validate(self.insecure, faults);
        let named = !self.tls.is_set() || !self.tls.server_name.is_empty();
        faults.ensure(named, "link.tls.server_name", "the name in the brain's certificate is needed");
    }
}

impl Security {
    fn validate(&self, faults: &mut ConfigErrors) {
        if self.allowed_origins.contains(&origin::Rule::Any) {
            let key = "security.allowed_origins";
            faults.ensure(self.allowed_origins.len() == 1, key, "\"*\" must stand alone");
            faults.ensure(self.insecure_any_origin, key, "\"*\" needs security.insecure_any_origin = true");
        }
    }
}

impl Auth {
    fn validate(&self, faults: &mut ConfigErrors) {
        if let Some(secret) = &self.hs256_secret
            && let Err(weak) = auth::check_secret(secret.expose_secret())
        {
            faults.add("auth.hs256_secret", format!("the secret {weak}"));
        }
        let (file, url) = (!self.jwks_file.is_empty(), !self.jwks_url.is_empty());
        // A secret whose file could not be read has its own fault already.
        let secret = self.hs256_secret.is_some() || !self.hs256_secret_file.is_empty();
        let keys = "no key to check tokens with: set CHATBOX__AUTH__HS256_SECRET (or auth.hs256_secret_file), \
                    auth.jwks_file or auth.jwks_url";
        faults.ensure(secret || file || url, "auth", keys);
        faults.ensure(!(file && url), "auth.jwks_url", "given as well as auth.jwks_file; set only one of them");
        if file && let Err(error) = auth::check_jwks_file(Path::new(&self.jwks_file)) {
            faults.add("auth.jwks_file", error);
        }
        if url
            && !Url::parse(&self.jwks_url).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
        {
            faults.add("auth.jwks_url", "no http or https address");
        }
        within(faults, "auth.jwks_refresh_seconds", self.jwks_refresh_seconds, MIN_JWKS_INTERVAL.as_secs(), 86_400);
        within(faults, "auth.leeway_seconds", self.leeway_seconds, 0, 300);
    }

    /// What the token verifier is made from.
    pub fn options(&self) -> auth::Options {
        let source = if self.jwks_file.is_empty() {
            Url::parse(&self.jwks_url).ok().map(JwksSource::Url)
        } else {
            Some(JwksSource::File(self.jwks_file.clone().into()))
        };
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        auth::Options {
            hs256_secret: self.hs256_secret.clone(),
            jwks: source.map(|source| (source, Duration::from_secs(self.jwks_refresh_seconds))),
            rules: Rules {
                issuer: given(&self.issuer),
                audience: given(&self.audience),
                leeway: Duration::from_secs(self.leeway_seconds),
            },
        }
    }
}

impl Limits {
    fn validate(&self, faults: &mut ConfigErrors) {
        within(faults, "limits.max_connections", self.max_connections, 0, 1_000_000);
        within(faults, "limits.handshakes_per_minute", self.handshakes_per_minute, 1, 10_000_000);
        within(faults, "limits.handshake_burst", self.handshake_burst, 1, 1_000_000);
        within(faults, "limits.max_frame_bytes", self.max_frame_bytes, 1024, 16 << 20);
        within(faults, "limits.max_invalid_frames", self.max_invalid_frames, 1, 10_000);
        within(faults, "limits.requests_per_second", self.requests_per_second, 1, 100_000);
        within(faults, "limits.request_burst", self.request_burst, 1, 100_000);
        within(faults, "limits.max_in_flight", self.max_in_flight, 1, 4096);
        within(faults, "limits.outbound_queue_bytes", self.outbound_queue_bytes, 16 << 10, 256 << 20);
        within(faults, "limits.header_timeout_ms", self.header_timeout_ms, 100, 60_000);
        // hyper reads in buffers of at least 8 KiB.
        within(faults, "limits.max_header_bytes", self.max_header_bytes, 8192, 1 << 20);
        within(faults, "limits.max_headers", self.max_headers, 10, 1000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatbox_shared::config::load_from;

    const SECRET: (&str, &str) = ("CHATBOX__AUTH__HS256_SECRET", "kT7w!nB4xQz9vR2mL6pY8cJ3hF5dG1sA");
    const INSECURE: (&str, &str) = ("CHATBOX__LINK__INSECURE", "true");

    fn load(more: &[(&str, &str)]) -> Result<GatewaySettings, ConfigErrors> {
        load_from(None, [SECRET, INSECURE].iter().chain(more).copied())
    }

    #[test]
    fn the_defaults_need_only_a_key_and_a_word_on_the_link() {
        let settings = load(&[]).expect("good");
        assert_eq!(settings.gateway.path_prefix, "/chat");
        let faults = load_from::<GatewaySettings>(None, [("A", "b")]).expect_err("incomplete");
        let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, ["link", "auth"]);
    }

    #[test]
    fn every_fault_is_found_at_once() {
        let faults = load(&[
            ("CHATBOX__GATEWAY__PATH_PREFIX", "chat/"),
            ("CHATBOX__GATEWAY__ID", "a b"),
            ("CHATBOX__BRAIN__ENDPOINTS", r#"["http://a:1", "https://b:1", "c", "http://d/x"]"#),
            ("CHATBOX__SECURITY__ALLOWED_ORIGINS", r#"["*", "https://a.example.com"]"#),
            ("CHATBOX__AUTH__HS256_SECRET", "too-short-canary"),
            ("CHATBOX__AUTH__JWKS_URL", "ftp://a"),
            ("CHATBOX__AUTH__JWKS_FILE", "/nonexistent/jwks.json"),
            ("CHATBOX__AUTH__JWKS_REFRESH_SECONDS", "29"),
            ("CHATBOX__LIMITS__MAX_FRAME_BYTES", "1"),
            ("CHATBOX__LIMITS__MAX_HEADER_BYTES", "100"),
            ("CHATBOX__HEARTBEAT__INTERVAL_MS", "0"),
            ("CHATBOX__SHUTDOWN__DRAIN_SECONDS", "-1"),
            ("CHATBOX__LOG__FILTER", "info,=,,x=loud"),
        ])
        .expect_err("faults");
        for key in [
            "gateway.path_prefix",
            "gateway.id",
            "brain.endpoints.1",
            "brain.endpoints.2",
            "brain.endpoints.3",
            "security.allowed_origins",
            "auth.hs256_secret",
            "auth.jwks_url",
            "auth.jwks_file",
            "auth.jwks_refresh_seconds",
            "limits.max_frame_bytes",
            "limits.max_header_bytes",
            "heartbeat.interval_ms",
            "shutdown.drain_seconds",
            "log.filter",
        ] {
            assert!(faults.has(key), "no fault for {key} in:\n{faults}");
        }
        assert!(!faults.to_string().contains("canary"), "{faults}");
    }

    #[test]
    fn an_origin_or_a_proxy_that_is_none_is_a_fault() {
        let faults = load(&[
            ("CHATBOX__SECURITY__ALLOWED_ORIGINS", r#"["https://a.example.com/", "https://a.example.com"]"#),
            ("CHATBOX__SECURITY__TRUSTED_PROXIES", r#"["10.0.0.0/8", "10.0.0.0/99"]"#),
        ])
        .expect_err("faults");
        let text = faults.to_string();
        assert!(text.contains("security.allowed_origins") && text.contains("security.trusted_proxies"), "{text}");
    }

    #[test]
    fn any_origin_needs_a_second_word() {
        let any = ("CHATBOX__SECURITY__ALLOWED_ORIGINS", r#"["*"]"#);
        assert!(load(&[any]).expect_err("fault").has("security.allowed_origins"));
        assert!(load(&[any, ("CHATBOX__SECURITY__INSECURE_ANY_ORIGIN", "true")]).is_ok());
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert!(!format!("{:?}", load(&[]).expect("good")).contains(SECRET.1));
    }
}
