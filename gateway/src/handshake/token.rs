//! Where a handshake carries its token.

use http::header::{AUTHORIZATION, HeaderMap};

use super::query::parameter;
use super::single::{Repeated, single};
use super::subprotocol;

/// Why no token was found; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenNotFound {
    /// No place holds a token.
    #[error("there is no token")]
    Absent,
    /// One place holds more than one token, or its value is not text.
    #[error("the token is ambiguous")]
    Ambiguous,
}

impl From<Repeated> for TokenNotFound {
    fn from(Repeated: Repeated) -> Self {
        Self::Ambiguous
    }
}

impl TokenNotFound {
    /// A short stable name for the log.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Absent => "token_absent",
            Self::Ambiguous => "token_ambiguous",
        }
    }
}

/// The token from the first place that has one: the Authorization header, a subprotocol, and, with `allow_query`, the
/// parameter `token`.
///
/// # Errors
/// If there is no token, or more than one in the same place.
pub(super) fn find(headers: &HeaderMap, query: Option<&str>, allow_query: bool) -> Result<String, TokenNotFound> {
    if let Some(token) = bearer(headers)? {
        return Ok(token);
    }
    if let Some(token) = single(subprotocol::tokens(headers))? {
        return Ok(token.to_owned());
    }
    if allow_query && let Some(token) = parameter(query, "token")? {
        return Ok(token.into_owned());
    }
    Err(TokenNotFound::Absent)
}

/// The token of the Authorization header. Another scheme than Bearer is ignored, because it may belong to a proxy.
fn bearer(headers: &HeaderMap) -> Result<Option<String>, TokenNotFound> {
    let Some(value) = single(headers.get_all(AUTHORIZATION).iter())? else { return Ok(None) };
    let value = value.to_str().map_err(|_| TokenNotFound::Ambiguous)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim().to_owned())),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::SEC_WEBSOCKET_PROTOCOL;
    use http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).expect("value"));
        }
        headers
    }

    fn found(pairs: &[(HeaderName, &str)], query: &str, allow_query: bool) -> Result<String, TokenNotFound> {
        find(&headers(pairs), Some(query), allow_query)
    }

    #[test]
    fn the_first_place_that_has_a_token_counts() {
        let bearer = (AUTHORIZATION, "Bearer a.b.c");
        let protocol = (SEC_WEBSOCKET_PROTOCOL, "chatbox.v1, chatbox.jwt.d.e.f");
        assert_eq!(found(&[bearer.clone(), protocol.clone()], "token=g", true).as_deref(), Ok("a.b.c"));
        assert_eq!(found(&[protocol], "token=g", true).as_deref(), Ok("d.e.f"));
        assert_eq!(found(&[], "x=1&token=g", true).as_deref(), Ok("g"));
        assert_eq!(found(&[], "token=g", false), Err(TokenNotFound::Absent));
        assert_eq!(found(&[(AUTHORIZATION, "bearer  a.b.c")], "", false).as_deref(), Ok("a.b.c"));
    }

    #[test]
    fn a_proxys_credentials_are_no_token_and_two_tokens_are_none() {
        let basic = (AUTHORIZATION, "Basic dTpw");
        let protocol = (SEC_WEBSOCKET_PROTOCOL, "chatbox.jwt.d");
        assert_eq!(found(&[basic.clone(), protocol.clone()], "", false).as_deref(), Ok("d"));
        assert_eq!(found(&[basic], "", false), Err(TokenNotFound::Absent));
        let bearer = (AUTHORIZATION, "Bearer a");
        assert_eq!(found(&[bearer.clone(), bearer], "", false), Err(TokenNotFound::Ambiguous));
        assert_eq!(found(&[protocol.clone(), protocol], "", false), Err(TokenNotFound::Ambiguous));
        assert_eq!(found(&[], "token=a&token=b", true), Err(TokenNotFound::Ambiguous));
        // An empty token counts as a token; the next place is not read.
        assert_eq!(found(&[(AUTHORIZATION, "Bearer ")], "token=g", true).as_deref(), Ok(""));
    }
}
