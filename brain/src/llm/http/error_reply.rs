//! An error reply of a provider: status, retry hints, the beginning of the body.

use std::time::Duration;

use chatbox_shared::clock::Timestamp;
use http::{HeaderMap, HeaderName};

use crate::llm::{ErrorClass, ProviderError};

/// Bytes of an error body that are read.
pub(crate) const MAX_ERROR_BYTES: usize = 16 << 10;

/// Characters of the provider's message that are logged.
const MAX_DETAIL_CHARS: usize = 300;

/// A reply whose status is not a success.
#[derive(Debug)]
pub(crate) struct ErrorReply {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The beginning of the body. Proxies reply too, so it may be HTML, plain text or empty.
    pub(crate) body: Vec<u8>,
    retry_after: Option<Duration>,
    should_retry: Option<bool>,
}

impl ErrorReply {
    pub(super) fn new(status: u16, headers: &HeaderMap, body: Vec<u8>, now: Timestamp) -> Self {
        Self { status, body, retry_after: retry_after(headers, now), should_retry: should_retry(headers) }
    }

    /// How long the provider asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The error of this reply. `said` is the provider's message; `None` where the body is not of its protocol.
    pub(crate) fn error(&self, class: ErrorClass, said: Option<String>) -> ProviderError {
        let detail = said.unwrap_or_else(|| String::from_utf8_lossy(&self.body).into_owned());
        ProviderError {
            class,
            status: Some(self.status),
            retry_after: self.retry_after,
            // A missing permission or an empty account persists, whatever a proxy says about retries.
            should_retry: self.should_retry.filter(|_| !matches!(class, ErrorClass::Auth | ErrorClass::Quota)),
            remedy: None,
            unsent: false,
            detail: detail_of(class, &detail),
        }
    }
}

/// The provider's message for the log: one short line. Rejections of a key are not quoted: they tend to repeat the key.
pub(crate) fn detail_of(class: ErrorClass, said: &str) -> String {
    match class {
        ErrorClass::Auth => "the provider rejected the key, or the key lacks a permission".to_owned(),
        _ if said.trim().is_empty() => "no message".to_owned(),
        _ => said.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_DETAIL_CHARS).collect(),
    }
}

/// The class of a status, where the body names none.
pub(crate) fn class_of_status(status: u16) -> ErrorClass {
    match status {
        401 | 403 => ErrorClass::Auth,
        402 => ErrorClass::Quota,
        404 => ErrorClass::NotFound,
        408 | 504 | 524 => ErrorClass::Timeout,
        // A conflict with a concurrent request, which passes.
        409 => ErrorClass::Overloaded,
        429 => ErrorClass::RateLimited,
        503 | 529 => ErrorClass::Overloaded,
        500..=599 => ErrorClass::Server,
        _ => ErrorClass::Rejected,
    }
}

/// Reads `retry-after-ms`, else `retry-after` in seconds, else `retry-after` as a date. A value that cannot be read
/// falls through to the next form. `None` where the wait is not in the future.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok();
    let millis = text(&HeaderName::from_static("retry-after-ms")).and_then(number).map(|millis| millis / 1000.0);
    let after = text(&http::header::RETRY_AFTER);
    let wait = match millis.or_else(|| after.and_then(number)) {
        // A wait beyond the largest duration is still a wait.
        Some(seconds) if seconds > 0.0 => Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)),
        Some(_) => None,
        None => {
            let date = httpdate::parse_http_date(after?).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(Timestamp(i64::try_from(date.as_millis()).ok()?).since(now))
        }
    };
    wait.filter(|wait| !wait.is_zero())
}

fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_378_457_000);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn wait(pairs: &[(&'static str, &str)]) -> Option<f64> {
        retry_after(&headers(pairs), NOW).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let date = |offset: i64| {
            let seconds = u64::try_from(NOW.0 / 1000 + offset).unwrap();
            httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds))
        };
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[("retry-after", "7")]), Some(7.0));
        assert_eq!(wait(&[("retry-after", " 0.5 ")]), Some(0.5));
        assert_eq!(wait(&[("retry-after-ms", "250"), ("retry-after", "7")]), Some(0.25));
        assert_eq!(wait(&[("retry-after-ms", "soon"), ("retry-after", "7")]), Some(7.0));
        assert_eq!(wait(&[("retry-after", &date(30))]), Some(30.0));
        assert_eq!(wait(&[("retry-after", &date(-30))]), None);
        for endless in ["inf", "1e300"] {
            assert_eq!(wait(&[("retry-after", endless)]), Some(Duration::MAX.as_secs_f64()), "{endless}");
        }
        for nonsense in ["0", "-3", "NaN", "tomorrow", ""] {
            assert_eq!(wait(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }

    #[test]
    fn the_word_on_retrying_overrides_all_but_money_and_rights() {
        let refusal =
            |word: &'static str| ErrorReply::new(500, &headers(&[("x-should-retry", word)]), b"<html>".to_vec(), NOW);
        assert!(!refusal("false").error(ErrorClass::Server, None).retryable());
        assert!(refusal("true").error(ErrorClass::Rejected, None).retryable());
        assert!(!refusal("true").error(ErrorClass::Quota, None).retryable());
        assert!(!refusal("true").error(ErrorClass::Auth, None).retryable());
        assert!(refusal("perhaps").error(ErrorClass::Server, None).retryable());
    }

    #[test]
    fn a_detail_is_one_short_line() {
        let said = format!("a\nb\u{1b}[31m{}", "x".repeat(1000));
        let detail = detail_of(ErrorClass::Server, &said);
        assert!(detail.starts_with("a b [31mxx") && detail.chars().count() == 300, "{detail}");
        assert!(!detail_of(ErrorClass::Auth, "Incorrect API key provided: abc").contains("abc"));
        assert_eq!(detail_of(ErrorClass::Server, " \n"), "no message");
    }
}
