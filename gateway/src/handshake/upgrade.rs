//! The WebSocket part of a handshake (RFC 6455, 4.2.1), and the response that accepts it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{Response, StatusCode, Version};
use http_body_util::Full;
use tungstenite::handshake::derive_accept_key;

use super::single::single;
use super::subprotocol::{PROTOCOL, offers_protocol};

/// Why a request is not a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UpgradeError {
    /// The request does not ask for WebSocket version 13 over HTTP/1.1.
    #[error("not a WebSocket handshake of version 13")]
    NotRequested,
    /// The key is invalid, or the request has a body.
    #[error("the WebSocket handshake is malformed")]
    Malformed,
}

/// Checks a GET request and returns the value of Sec-WebSocket-Accept for it.
///
/// # Errors
/// If the request is not a handshake.
pub(super) fn check(version: Version, headers: &HeaderMap) -> Result<HeaderValue, UpgradeError> {
    let requested = version == Version::HTTP_11
        && lists(headers, &CONNECTION, "upgrade")
        && lists(headers, &UPGRADE, "websocket")
        && only(headers, &SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if !requested {
        return Err(UpgradeError::NotRequested);
    }
    let has_body =
        headers.contains_key(TRANSFER_ENCODING) || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    let key = only(headers, &SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).ok_or(UpgradeError::Malformed)?;
    if has_body || STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
        return Err(UpgradeError::Malformed);
    }
    HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| UpgradeError::Malformed)
}

/// The response that opens the WebSocket. It names no subprotocol but [`PROTOCOL`], and never one with a token.
pub(super) fn accept(headers: &HeaderMap, accept_key: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept_key);
    if offers_protocol(headers) {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    response
}

/// Whether a comma-separated header lists a word.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// The value of a header that is given exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    single(headers.get_all(name).iter()).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> HeaderMap {
        let pairs = [
            (CONNECTION, "keep-alive, Upgrade"),
            (UPGRADE, "WebSocket"),
            (SEC_WEBSOCKET_VERSION, "13"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        pairs.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let accept_key = check(Version::HTTP_11, &good()).expect("accepted");
        assert_eq!(accept_key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut headers = good();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chatbox.jwt.a.b.c, chatbox.v1"));
        let response = accept(&headers, accept_key);
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "chatbox.v1");
        assert_eq!(response.headers().len(), 4);
    }

    #[test]
    fn without_an_offer_no_subprotocol_is_named() {
        let accept_key = check(Version::HTTP_11, &good()).expect("accepted");
        assert!(!accept(&good(), accept_key).headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn other_requests_are_not_handshakes() {
        for (name, value) in [
            (CONNECTION, "keep-alive"),
            (CONNECTION, "upgraded"),
            (UPGRADE, "h2c"),
            (SEC_WEBSOCKET_VERSION, "12"),
            (SEC_WEBSOCKET_VERSION, "013"),
        ] {
            let mut headers = good();
            headers.insert(&name, HeaderValue::from_static(value));
            assert_eq!(check(Version::HTTP_11, &headers), Err(UpgradeError::NotRequested), "{name}: {value}");
            headers.remove(&name);
            assert_eq!(check(Version::HTTP_11, &headers), Err(UpgradeError::NotRequested), "no {name}");
        }
        assert_eq!(check(Version::HTTP_10, &good()), Err(UpgradeError::NotRequested));
    }

    #[test]
    fn malformed_handshakes_are_refused() {
        for key in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==,", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAA"]
        {
            let mut headers = good();
            headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static(key));
            assert_eq!(check(Version::HTTP_11, &headers), Err(UpgradeError::Malformed), "{key}");
        }
        for (name, value) in
            [(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="), (CONTENT_LENGTH, "5"), (TRANSFER_ENCODING, "chunked")]
        {
            let mut headers = good();
            headers.append(&name, HeaderValue::from_static(value));
            assert_eq!(check(Version::HTTP_11, &headers), Err(UpgradeError::Malformed), "{name}");
        }
        let mut no_key = good();
        no_key.remove(SEC_WEBSOCKET_KEY);
        assert_eq!(check(Version::HTTP_11, &no_key), Err(UpgradeError::Malformed));
    }
}
