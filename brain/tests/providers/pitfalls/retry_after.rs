//! The hints of providers when to retry: their order, their cap, and the header `x-should-retry` that overrides them.

use std::time::{Duration, Instant, SystemTime};

use chatbox_brain::llm::ErrorClass;
use chatbox_tests::provider::{FakeProvider, Script};
use serde_json::json;

use super::wire::ask_once;
use crate::support::{KINDS, ask, model};

fn busy(headers: &[(&str, &str)]) -> Script {
    headers.iter().fold(Script::body(503, "text/plain", "busy"), |script, (name, value)| script.header(name, value))
}

#[tokio::test]
async fn retry_after_hints_have_an_order_and_what_is_no_number_falls_through() {
    let fake = FakeProvider::start().await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the date goes to a client that reads the same clock")]
    let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(600));
    for kind in KINDS {
        for (row, headers, wait) in [
            ("no hint", vec![], None),
            ("milliseconds", vec![("retry-after-ms", "250")], Some(0.25)),
            ("seconds", vec![("retry-after", "7")], Some(7.0)),
            ("broken seconds", vec![("retry-after", "0.5")], Some(0.5)),
            ("milliseconds first", vec![("retry-after", "7"), ("retry-after-ms", "250.5")], Some(0.2505)),
            ("not a number, seconds", vec![("retry-after-ms", "soon"), ("retry-after", "7")], Some(7.0)),
            ("not a number at all", vec![("retry-after-ms", "soon"), ("retry-after", "later")], None),
            ("zero", vec![("retry-after", "0")], None),
            ("negative", vec![("retry-after", "-3")], None),
            ("a date gone by", vec![("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], None),
        ] {
            let error = ask_once(&fake, kind, busy(&headers)).await.1.unwrap_err();
            assert_eq!(error.retry_after.map(|wait| wait.as_secs_f64()), wait, "{kind}, {row}");
        }
        let headers = [("retry-after-ms", "soon"), ("retry-after", soon.as_str())];
        let wait = ask_once(&fake, kind, busy(&headers)).await.1.unwrap_err().retry_after.unwrap().as_secs();
        assert!((590..=600).contains(&wait), "{kind}, a date: {wait}");
    }
}

#[tokio::test]
async fn retry_after_is_a_minimum_and_has_a_cap() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({"max_retries": 1}));
        fake.script(busy(&[("retry-after-ms", "300")]));
        let before = fake.journal().len();
        ask(&model).await.1.unwrap();
        let calls = fake.journal().split_off(before);
        let wait = calls[1].at - calls[0].at;
        assert!(wait >= Duration::from_millis(300) && wait < Duration::from_secs(2), "{kind}, a minimum: {wait:?}");

        for word in ["", "true"] {
            fake.script(busy(&[("retry-after", "15"), ("x-should-retry", word)]));
            let begin = Instant::now();
            let error = ask(&model).await.1.unwrap_err();
            assert_eq!(error.class, ErrorClass::Overloaded, "{kind}: above the cap");
            assert!(
                begin.elapsed() < Duration::from_secs(10),
                "{kind}: above the cap the call fails without a wait, {word:?}"
            );
        }
    }
}

#[tokio::test]
async fn retry_after_counts_less_than_an_explicit_word() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let model = model(kind, &fake.url(), json!({"max_retries": 1}));
        for (row, status, word, again) in [
            ("500, no word", 500, "", true),
            ("500, false", 500, "false", false),
            ("429, false", 429, "false", false),
            ("422, no word", 422, "", false),
            ("422, true", 422, "true", true),
            ("401, true", 401, "true", false),
            ("402, true", 402, "true", false),
            ("500, another word", 500, "perhaps", true),
            ("422, another word", 422, "perhaps", false),
        ] {
            let script = Script::body(status, "text/plain", "x").header("retry-after-ms", "1");
            fake.always(if word.is_empty() { script } else { script.header("x-should-retry", word) });
            let before = fake.journal().len();
            ask(&model).await.1.unwrap_err();
            assert_eq!(fake.journal().len() - before, 1 + usize::from(again), "{kind}, {row}");
        }
    }
}
