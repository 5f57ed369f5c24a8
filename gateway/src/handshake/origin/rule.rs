//! Origins of web pages, and the rules that allow them. An origin is parsed strictly and compared as a whole, by scheme,
//! host and port; never by prefix, suffix or substring.

use serde::Deserialize;
use url::Url;

/// Scheme, host and port of a page, in lower case. The port is explicit if the scheme has a default port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub(super) scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// Parses an origin as browsers write it: `scheme://host` or `scheme://host:port`. `None` for everything that a
    /// lenient URL parser would accept or correct: user names, backslashes, percent signs, unusual numbers.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*') {
            return None;
        }
        let lower = text.to_ascii_lowercase();
        let url = Url::parse(&lower).ok()?;
        let (scheme, host) = (url.scheme(), url.host_str()?);
        let default = default_port(scheme);
        let port = url.port().or(default);
        let mut spellings = vec![];
        if let Some(port) = port {
            spellings.push(format!("{scheme}://{host}:{port}"));
        }
        if port == default {
            spellings.push(format!("{scheme}://{host}"));
        }
        let faithful = !host.is_empty() && !host.ends_with('.') && spellings.contains(&lower);
        faithful.then(|| Self { scheme: scheme.to_owned(), host: host.to_owned(), port })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// One entry of `security.allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum OriginRule {
    /// `*`: every origin. For development.
    Any,
    /// One origin.
    Exact(Origin),
    /// `https://*.example.com`: the hosts one level below, without the host itself. Holds the origin without `*.`.
    OneBelow(Origin),
}

impl TryFrom<String> for OriginRule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let shape = || {
            format!("{text:?} is not an origin: write scheme://host or scheme://host:port without a slash at the end")
        };
        let Some((scheme, host)) = text.split_once("://*.") else {
            return Origin::parse(&text).map(Self::Exact).ok_or_else(shape);
        };
        let parent = Origin::parse(&format!("{scheme}://{host}")).ok_or_else(shape)?;
        let is_name =
            parent.host.rsplit('.').next().is_some_and(|label| label.starts_with(|c: char| c.is_ascii_alphabetic()));
        if !is_name {
            return Err(shape());
        }
        if !parent.host.contains('.') && parent.host != "localhost" {
            return Err(format!("{text:?} would allow every site below a top-level domain"));
        }
        Ok(Self::OneBelow(parent))
    }
}

impl OriginRule {
    /// Whether the rule allows an origin.
    pub(super) fn allows(&self, origin: &Origin) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(allowed) => allowed == origin,
            Self::OneBelow(parent) => {
                let label = origin.host.strip_suffix(&parent.host).and_then(|rest| rest.strip_suffix('.'));
                label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
                    && (&parent.scheme, parent.port) == (&origin.scheme, origin.port)
            }
        }
    }
}
