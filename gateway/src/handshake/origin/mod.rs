//! Which web pages may connect, by the Origin header of their handshake.

mod rule;

use http::header::{HOST, HeaderMap, HeaderValue, ORIGIN};

use super::single::{Repeated, single};
use rule::Origin;
pub use rule::OriginRule;

/// Why an origin is rejected; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// There is no Origin header, and the policy requires one.
    #[error("there is no Origin header")]
    Absent,
    /// There is more than one Origin header.
    #[error("there is more than one Origin header")]
    Several,
    /// The header holds `null`, or is not an origin.
    #[error("the Origin header is not an origin")]
    Unreadable,
    /// No rule allows the origin.
    #[error("the origin is not in security.allowed_origins")]
    NotListed,
    /// There are no rules, and the page comes from another host.
    #[error("the origin is not this host")]
    NotThisHost,
}

impl OriginError {
    /// A short stable name for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Absent => "origin_absent",
            Self::Several => "origin_several",
            Self::Unreadable => "origin_unreadable",
            Self::NotListed => "origin_not_listed",
            Self::NotThisHost => "origin_not_this_host",
        }
    }
}

/// Longest origin in the log, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// Which pages may connect.
#[derive(Debug, Clone)]
pub struct OriginPolicy {
    /// The allowed origins. Empty: only pages of the host that the request is sent to.
    pub allowed: Vec<OriginRule>,
    /// Reject requests without an Origin header. Only browsers send one.
    pub required: bool,
}

impl OriginPolicy {
    /// Checks the Origin header of a request.
    ///
    /// # Errors
    /// If the page may not connect.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), OriginError> {
        let origin = match single(headers.get_all(ORIGIN).iter()) {
            Ok(Some(origin)) => origin,
            Ok(None) if self.required => return Err(OriginError::Absent),
            Ok(None) => return Ok(()),
            Err(Repeated) => return Err(OriginError::Several),
        };
        let origin = text(origin).and_then(Origin::parse).ok_or(OriginError::Unreadable)?;
        if self.allowed.is_empty() {
            return if is_this_host(&origin, headers) { Ok(()) } else { Err(OriginError::NotThisHost) };
        }
        if self.allowed.iter().any(|rule| rule.allows(&origin)) { Ok(()) } else { Err(OriginError::NotListed) }
    }
}

/// Whether the page comes from the host that the request is sent to. The scheme is taken from the origin, because behind
/// a proxy that terminates TLS the gateway does not know it.
fn is_this_host(origin: &Origin, headers: &HeaderMap) -> bool {
    let Ok(Some(host)) = single(headers.get_all(HOST).iter()) else { return false };
    let Some(host) = text(host) else { return false };
    Origin::parse(&format!("{}://{host}", origin.scheme)).as_ref() == Some(origin)
}

/// The Origin header of a rejected request for the log, cut to [`MAX_SHOWN_CHARS`].
pub(super) fn shown(headers: &HeaderMap) -> String {
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes).unwrap_or_default();
    String::from_utf8_lossy(origin).chars().take(MAX_SHOWN_CHARS).collect()
}

fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

#[cfg(test)]
mod tests;
