//! Errors in the form of each protocol, for refusals with a status and for events within a stream; and the retry headers of
//! a refusal.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use time::macros::format_description;
use time::{Duration, OffsetDateTime};

/// An error of a provider. A field that is not set gets the usual value of the protocol for this status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// The status of a refusal. Dify sends it within a stream too.
    pub status: Option<u16>,
    /// `error.type` of OpenAI and Anthropic.
    #[serde(alias = "type")]
    pub kind: Option<String>,
    /// `error.code` of OpenAI, `error.details.error_code` of Anthropic, `code` of Dify.
    pub code: Option<String>,
    /// The text for humans.
    pub message: Option<String>,
    /// The form in OpenAI-compatible protocols.
    pub form: Form,
    /// The account is empty: fields that are not set get the values for that.
    pub quota: bool,
    /// OpenAI's `[DONE]` follows.
    pub done: bool,
}

/// The forms of an error in OpenAI-compatible protocols.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `{"error":{"message":..,"type":..,"param":null,"code":".."}}`
    #[default]
    Nested,
    /// The same with a number for the code, as vLLM writes it.
    NestedNumber,
    /// `{"error":"text"}`
    Text,
    /// `{"object":"error","message":..,"type":..,"param":null,"code":400}`
    Flat,
}

impl Fault {
    /// With this status and its usual values.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// With this status, type and code.
    pub fn of(status: u16, kind: &str, code: &str) -> Self {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self { kind: text(kind), code: text(code), ..Self::status(status) }
    }

    pub(super) fn message(&self) -> &str {
        self.message.as_deref().unwrap_or("the script asked for this error")
    }
}

/// The retry headers of a refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// `retry-after` as it is: `7`, `0.5`, nonsense.
    pub after: Option<String>,
    /// `retry-after` as a date so many seconds after the reply; negative is in the past.
    pub date_in: Option<i32>,
    /// `retry-after-ms` as it is.
    pub after_ms: Option<String>,
    /// `x-should-retry`.
    pub should_retry: Option<bool>,
}

impl Retry {
    /// `retry-after` as it is.
    pub fn after(value: impl Into<String>) -> Self {
        Self { after: Some(value.into()), ..Self::default() }
    }

    /// `retry-after` as a date so many seconds after the reply.
    pub fn date_in(seconds: i32) -> Self {
        Self { date_in: Some(seconds), ..Self::default() }
    }

    /// `retry-after-ms` as it is.
    pub fn after_ms(value: impl Into<String>) -> Self {
        Self { after_ms: Some(value.into()), ..Self::default() }
    }

    /// `x-should-retry` alone.
    pub fn should(retry: bool) -> Self {
        Self { should_retry: Some(retry), ..Self::default() }
    }

    /// Adds them; dates count from now.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let date = self.date_in.and_then(|seconds| http_date(i64::from(seconds)));
        for (name, value) in [
            ("retry-after", self.after.clone()),
            ("retry-after", date),
            ("retry-after-ms", self.after_ms.clone()),
            ("x-should-retry", self.should_retry.map(|should| should.to_string())),
        ] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, so many seconds from now.
fn http_date(seconds: i64) -> Option<String> {
    let form =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    (OffsetDateTime::now_utc() + Duration::seconds(seconds)).format(form).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_trying_again_is_written() {
        let written = |retry: Retry| {
            let mut headers = HeaderMap::new();
            retry.write(&mut headers);
            let text = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
            headers.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(written(Retry::default()), Vec::<String>::new());
        assert_eq!(written(Retry::after("0.5")), ["retry-after: 0.5"]);
        assert_eq!(written(Retry::after("soon")), ["retry-after: soon"]);
        assert_eq!(written(Retry::after_ms("20")), ["retry-after-ms: 20"]);
        assert_eq!(written(Retry::should(false)), ["x-should-retry: false"]);
    }

    #[test]
    fn dates_count_from_the_reply() {
        let now = OffsetDateTime::now_utc();
        for seconds in [5, -3600] {
            let mut headers = HeaderMap::new();
            Retry::date_in(seconds).write(&mut headers);
            let text = headers["retry-after"].to_str().unwrap().strip_suffix(" GMT").unwrap().to_owned() + " +0000";
            let date = OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc2822).unwrap();
            let off = (date - now).whole_seconds() - i64::from(seconds);
            assert!((-1..=2).contains(&off), "{text}: {off}");
        }
    }
}
