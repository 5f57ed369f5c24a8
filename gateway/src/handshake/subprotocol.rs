//! The WebSocket subprotocols that a client offers. A page cannot set other headers, so the token may be one of them.

use http::header::{HeaderMap, SEC_WEBSOCKET_PROTOCOL};

/// The subprotocol of the contract, and the only one that a response ever names.
pub(super) const PROTOCOL: &str = "chatbox.v1";
/// The prefix of a subprotocol that carries a token.
const TOKEN_PREFIX: &str = "chatbox.jwt.";

/// Whether the client offers [`PROTOCOL`].
pub(super) fn offers_protocol(headers: &HeaderMap) -> bool {
    offered(headers).any(|name| name == PROTOCOL)
}

/// The tokens among the offered subprotocols.
pub(super) fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    offered(headers).filter_map(|name| name.strip_prefix(TOKEN_PREFIX))
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_protocol_is_found_at_any_place_of_the_list() {
        let offers = |values: &[&'static str]| {
            let pairs = values.iter().map(|value| (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value)));
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name, value);
            }
            offers_protocol(&headers)
        };
        assert!(offers(&["chatbox.v1"]));
        assert!(offers(&["a,chatbox.v1 , b"]));
        assert!(offers(&["a", "chatbox.v1"]));
        assert!(!offers(&[]));
        assert!(!offers(&["chatbox.v10", "chatbox.jwt.chatbox.v1", "CHATBOX.V1"]));
    }
}
