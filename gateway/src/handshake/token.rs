//! Where a handshake carries its token and its device name.

use http::header::{AUTHORIZATION, HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use url::form_urlencoded;

/// The subprotocol this gateway speaks, and the only one it ever answers with.
pub(super) const PROTOCOL: &str = "chatbox.v1";
/// A subprotocol that begins so carries the token: the one header a page can fill in a WebSocket handshake.
const TOKEN_PROTOCOL_PREFIX: &str = "chatbox.jwt.";
/// Longest device name.
const MAX_DEVICE_CHARS: usize = 64;

/// Why no token was found; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoToken {
    /// None in any of the three places.
    #[error("there is no token")]
    Absent,
    /// The same place holds two, or what it holds is no text.
    #[error("the place for the token holds something else")]
    Ambiguous,
}

impl NoToken {
    /// A short stable name for the log.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Absent => "token_absent",
            Self::Ambiguous => "token_ambiguous",
        }
    }
}

/// Takes the token from the first place that has one: the Authorization header, a subprotocol, and, where
/// `allow_query`, the parameter `token`.
///
/// # Errors
/// Where there is none, or two in one place.
pub(super) fn find(headers: &HeaderMap, query: Option<&str>, allow_query: bool) -> Result<String, NoToken> {
    if let Some(token) = bearer(headers)? {
        return Ok(token);
    }
    if let Some(token) = one(protocols(headers).filter_map(|name| name.strip_prefix(TOKEN_PROTOCOL_PREFIX)))? {
        return Ok(token.to_owned());
    }
    if allow_query && let Some(token) = parameter(query, "token")? {
        return Ok(token);
    }
    Err(NoToken::Absent)
}

/// Does the client offer the subprotocol this gateway speaks?
pub(super) fn offers_protocol(headers: &HeaderMap) -> bool {
    protocols(headers).any(|name| name == PROTOCOL)
}

/// A device name that is not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("device must be 1-{MAX_DEVICE_CHARS} of A-Z a-z 0-9 . _ -, once")]
pub(super) struct BadDevice;

/// The parameter `device`.
///
/// # Errors
/// Where it is there and is no device name.
pub(super) fn device(query: Option<&str>) -> Result<Option<String>, BadDevice> {
    let device = parameter(query, "device").map_err(|_| BadDevice)?;
    let is_good = |name: &String| {
        (1..=MAX_DEVICE_CHARS).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match device {
        Some(name) if !is_good(&name) => Err(BadDevice),
        device => Ok(device),
    }
}

/// The Authorization header, if it is of the scheme Bearer. Others belong to a proxy on the way.
fn bearer(headers: &HeaderMap) -> Result<Option<String>, NoToken> {
    let Some(value) = one(headers.get_all(AUTHORIZATION).iter())? else { return Ok(None) };
    let value = value.to_str().map_err(|_| NoToken::Ambiguous)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim().to_owned())),
        _ => Ok(None),
    }
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn parameter(query: Option<&str>, name: &str) -> Result<Option<String>, NoToken> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    Ok(one(pairs.filter(|(key, _)| key == name))?.map(|(_, value)| value.into_owned()))
}

fn one<T>(mut values: impl Iterator<Item = T>) -> Result<Option<T>, NoToken> {
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(NoToken::Ambiguous),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).expect("value"));
        }
        headers
    }

    fn found(pairs: &[(HeaderName, &str)], query: &str, allow_query: bool) -> Result<String, NoToken> {
        find(&headers(pairs), Some(query), allow_query)
    }

    #[test]
    fn the_first_place_that_has_a_token_counts() {
        let bearer = (AUTHORIZATION, "Bearer a.b.c");
        let protocol = (SEC_WEBSOCKET_PROTOCOL, "chatbox.v1, chatbox.jwt.d.e.f");
        assert_eq!(found(&[bearer.clone(), protocol.clone()], "token=g", true).as_deref(), Ok("a.b.c"));
        assert_eq!(found(&[protocol], "token=g", true).as_deref(), Ok("d.e.f"));
        assert_eq!(found(&[], "x=1&token=g", true).as_deref(), Ok("g"));
        assert_eq!(found(&[], "token=g", false), Err(NoToken::Absent));
        assert_eq!(found(&[(AUTHORIZATION, "bearer  a.b.c")], "", false).as_deref(), Ok("a.b.c"));
    }

    #[test]
    fn a_proxys_credentials_are_no_token_and_two_tokens_are_none() {
        let basic = (AUTHORIZATION, "Basic dTpw");
        let protocol = (SEC_WEBSOCKET_PROTOCOL, "chatbox.jwt.d");
        assert_eq!(found(&[basic.clone(), protocol.clone()], "", false).as_deref(), Ok("d"));
        assert_eq!(found(&[basic], "", false), Err(NoToken::Absent));
        let bearer = (AUTHORIZATION, "Bearer a");
        assert_eq!(found(&[bearer.clone(), bearer], "", false), Err(NoToken::Ambiguous));
        assert_eq!(found(&[protocol.clone(), protocol], "", false), Err(NoToken::Ambiguous));
        assert_eq!(found(&[], "token=a&token=b", true), Err(NoToken::Ambiguous));
        // An empty one is one: it is not made up for by another place.
        assert_eq!(found(&[(AUTHORIZATION, "Bearer ")], "token=g", true).as_deref(), Ok(""));
    }

    #[test]
    fn the_protocol_is_found_in_any_place_of_the_list() {
        let offers = |values: &[&str]| {
            let pairs: Vec<_> = values.iter().map(|value| (SEC_WEBSOCKET_PROTOCOL, *value)).collect();
            offers_protocol(&headers(&pairs))
        };
        assert!(offers(&["chatbox.v1"]));
        assert!(offers(&["a,chatbox.v1 , b"]));
        assert!(offers(&["a", "chatbox.v1"]));
        assert!(!offers(&[]));
        assert!(!offers(&["chatbox.v10", "chatbox.jwt.chatbox.v1", "CHATBOX.V1"]));
    }

    #[test]
    fn a_device_is_a_short_plain_name() {
        assert_eq!(device(None), Ok(None));
        assert_eq!(device(Some("token=x")), Ok(None));
        assert_eq!(device(Some("device=My-Phone_2.0")), Ok(Some("My-Phone_2.0".to_owned())));
        assert_eq!(
            device(Some(&format!("device={}", "a".repeat(64)))).map(|name| name.map(|name| name.len())),
            Ok(Some(64))
        );
        let long = format!("device={}", "a".repeat(65));
        for query in [
            "device=",
            "device",
            "device=a%20b",
            "device=a+b",
            "device=%C3%BC",
            "device=a%0d%0ab",
            "device=a&device=a",
            "device=a%00",
            &long,
        ] {
            assert_eq!(device(Some(query)), Err(BadDevice), "{query}");
        }
    }

    proptest! {
        /// Whatever the query holds, a device that is accepted needs no quoting anywhere.
        #[test]
        fn an_accepted_device_is_plain(query in "[ -~]{0,40}") {
            if let Ok(Some(name)) = device(Some(&format!("device={query}"))) {
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
            }
        }
    }
}
