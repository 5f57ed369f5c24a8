//! One WebSocket connection to the gateway: how it is made, and what its end means.

use std::time::Duration;

use rand::RngExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::{Error, protocol::CloseFrame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The handshake, as a whole.
const CONNECT: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why there is no connection (any more).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Trying again helps; not before this time, where the server names one.
    Lost(String, Option<Duration>),
    /// Trying again does not help.
    Refused(String),
}

/// Connects with the token in the `Authorization` header.
pub(super) async fn connect(url: &str, token: &str) -> Result<Socket, Loss> {
    let mut request = url.into_client_request().map_err(|error| Loss::Refused(format!("{url}: {error}")))?;
    let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
    let bearer = bearer.map_err(|_| Loss::Refused("the token holds characters no token has".to_owned()))?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    match tokio::time::timeout(CONNECT, connect_async(request)).await {
        Err(_) => Err(Loss::Lost(format!("{url} does not answer"), None)),
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(handshake(url, &error)),
    }
}

fn handshake(url: &str, error: &Error) -> Loss {
    let Error::Http(response) = error else { return Loss::Lost(format!("no connection to {url}: {error}"), None) };
    let status = response.status();
    let body = response.body().as_deref().unwrap_or_default();
    let text = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|body| body["error"]["message"].as_str().map(ToOwned::to_owned))
        .unwrap_or_else(|| status.canonical_reason().unwrap_or_default().to_owned());
    let text = format!("the server answers {}: {text}", status.as_u16());
    if status.is_server_error() || status.as_u16() == 429 {
        let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        return Loss::Lost(text, after.map(Duration::from_secs));
    }
    Loss::Refused(text)
}

/// What a close frame means for trying again.
pub(super) fn closed(frame: Option<&CloseFrame>) -> Loss {
    let Some(frame) = frame else { return Loss::Lost("the server has closed the connection".to_owned(), None) };
    let code = u16::from(frame.code);
    let text = match code {
        4001 => "the token has expired or was refused".to_owned(),
        4002 => "another connection has replaced this one".to_owned(),
        4003 => "an admin has ended this connection".to_owned(),
        _ => format!("the server has closed the connection ({code} {})", frame.reason).replace(" )", ")"),
    };
    match code {
        // Our own fault, somebody's will, or the token's end: the same would happen again.
        1002 | 1003 | 1007..=1010 | 4001..=4003 => Loss::Refused(text),
        _ => Loss::Lost(text, None),
    }
}

/// How long to wait before the `attempt`-th try in a row, from 0: doubling, and jittered so that the clients of a server
/// that comes back do not all come at once.
pub(super) fn backoff(attempt: u32) -> Duration {
    let most = FIRST_WAIT.saturating_mul(1 << attempt.min(10)).min(LONGEST_WAIT);
    most.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::http::Response;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Loss {
        let mut response = Response::builder().status(status);
        if let Some(value) = retry_after {
            response = response.header("retry-after", value);
        }
        handshake("ws://x", &Error::Http(Box::new(response.body(Some(body.as_bytes().to_vec())).unwrap())))
    }

    #[test]
    fn refusals_that_may_pass_are_told_from_those_that_do_not() {
        let body = r#"{"error":{"code":"unauthorized","message":"A valid token is required.","error_id":"x"}}"#;
        assert_eq!(
            answer(401, None, body),
            Loss::Refused("the server answers 401: A valid token is required.".to_owned())
        );
        assert_eq!(answer(403, None, "<html>"), Loss::Refused("the server answers 403: Forbidden".to_owned()));
        assert_eq!(
            answer(503, Some("3"), ""),
            Loss::Lost("the server answers 503: Service Unavailable".to_owned(), Some(Duration::from_secs(3)))
        );
        assert!(matches!(answer(429, None, ""), Loss::Lost(_, None)));
    }

    #[test]
    fn close_codes_decide_on_coming_back() {
        let close = |code: u16| closed(Some(&CloseFrame { code: CloseCode::from(code), reason: "why".into() }));
        for code in [1008, 1009, 4001, 4002, 4003] {
            assert!(matches!(close(code), Loss::Refused(_)), "{code}");
        }
        for code in [1000, 1001, 1011, 1012, 1013, 4008, 4009] {
            assert!(matches!(close(code), Loss::Lost(_, None)), "{code}");
        }
        assert!(matches!(closed(None), Loss::Lost(_, None)));
    }

    #[test]
    fn waiting_doubles_up_to_a_limit() {
        for attempt in 0..40 {
            let most = FIRST_WAIT.saturating_mul(1 << attempt.min(10)).min(LONGEST_WAIT);
            let wait = backoff(attempt);
            assert!(wait >= most / 2 && wait <= most, "{attempt}: {wait:?}");
        }
    }
}
