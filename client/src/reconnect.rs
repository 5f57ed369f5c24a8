//! The reconnect policy: whether a client connects again after its connection ended, and after which time.

use std::time::Duration;

use rand::RngExt as _;

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// Another attempt may succeed; not before this time, where the server names one. The text is for people.
    Retry(String, Option<Duration>),
    /// Another attempt fails too. The text is for people.
    Final(String),
}

impl Disconnect {
    /// The gateway refused the handshake with this status. `body` is the error of docs/protocol.md, if it is one.
    pub fn refused(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let message = serde_json::from_slice::<serde_json::Value>(body)
            .ok()
            .and_then(|body| body["error"]["message"].as_str().map(|text| format!(": {text}")))
            .unwrap_or_default();
        let text = format!("the server responded with status {status}{message}");
        if status >= 500 || status == 429 { Self::Retry(text, retry_after) } else { Self::Final(text) }
    }

    /// The server closed the connection, with a close frame (code and reason) or without.
    pub fn closed(frame: Option<(u16, &str)>) -> Self {
        let Some((code, reason)) = frame else {
            return Self::Retry("the server closed the connection".to_owned(), None);
        };
        let text = match code {
            4001 => "the token has expired or was refused".to_owned(),
            4002 => "another connection has replaced this one".to_owned(),
            4003 => "an admin has ended this connection".to_owned(),
            _ => format!("the server closed the connection ({code} {reason})").replace(" )", ")"),
        };
        match code {
            // A protocol error, a decision of an admin, or an invalid token: the next connection would end the same way.
            1002 | 1003 | 1007..=1010 | 4001..=4003 => Self::Final(text),
            _ => Self::Retry(text, None),
        }
    }
}

/// The wait before attempt number `attempt` in a row, from 0. It doubles up to 10 s. Half of it is random, so that the clients
/// of a restarted server do not all connect at once.
pub fn backoff(attempt: u32) -> Duration {
    let most = FIRST_WAIT.saturating_mul(1 << attempt.min(10)).min(LONGEST_WAIT);
    most.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_refusal_is_retried_and_a_permanent_one_is_not() {
        let body = br#"{"error":{"code":"unauthorized","message":"A valid token is required.","error_id":"x"}}"#;
        assert_eq!(
            Disconnect::refused(401, None, body),
            Disconnect::Final("the server responded with status 401: A valid token is required.".to_owned())
        );
        let wait = Some(Duration::from_secs(3));
        let text = "the server responded with status 503".to_owned();
        assert_eq!(Disconnect::refused(503, wait, b"<html>"), Disconnect::Retry(text, wait));
        assert!(matches!(Disconnect::refused(429, None, b""), Disconnect::Retry(_, None)));
    }

    #[test]
    fn the_close_code_decides_about_the_next_connection() {
        let close = |code: u16| Disconnect::closed(Some((code, "why")));
        for code in [1008, 1009, 4001, 4002, 4003] {
            assert!(matches!(close(code), Disconnect::Final(_)), "{code}");
        }
        for code in [1000, 1001, 1011, 1012, 1013, 4008, 4009] {
            assert!(matches!(close(code), Disconnect::Retry(_, None)), "{code}");
        }
        assert!(matches!(Disconnect::closed(None), Disconnect::Retry(_, None)));
    }

    #[test]
    fn the_wait_doubles_up_to_a_limit() {
        for attempt in 0..40 {
            let most = FIRST_WAIT.saturating_mul(1 << attempt.min(10)).min(LONGEST_WAIT);
            let wait = backoff(attempt);
            assert!(wait >= most / 2 && wait <= most, "{attempt}: {wait:?}");
        }
    }
}
