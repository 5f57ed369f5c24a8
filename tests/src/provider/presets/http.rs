//! Replies that are no stream: refusals of any protocol, and connections that break before the head.

use std::time::Duration;

use super::Preset;
use crate::provider::fault::{Fault, Retry};
use crate::provider::script::Script;

fn limited(retry: Retry) -> Script {
    Script::refuse(Fault::status(429)).retry(retry)
}

pub(super) const PRESETS: &[Preset] = &[
    ("close_before_head", "the connection closes without a reply", Script::no_reply),
    ("reset_before_head", "the connection is reset without a reply", Script::reset),
    ("stall_before_head", "no reply at all", Script::silent),
    ("late_head", "a well-formed answer whose head comes after 5 seconds", || {
        Script::answer(["Late"]).head_after(Duration::from_secs(5))
    }),
    ("bad_request", "400", || Script::refuse(Fault::status(400))),
    ("unauthorized", "401", || Script::refuse(Fault::status(401))),
    ("not_found", "404", || Script::refuse(Fault::status(404))),
    ("quota", "429: account without credit", || Script::refuse(Fault { quota: true, ..Fault::status(429) })),
    ("rate_limited", "429 with `retry-after: 1`", || limited(Retry::after("1"))),
    ("rate_limited_silent", "429 that does not say when to try again", || limited(Retry::default())),
    ("rate_limited_fraction", "429 with `retry-after: 0.5`", || limited(Retry::after("0.5"))),
    ("rate_limited_date", "429 with a date 2 seconds ahead", || limited(Retry::date_in(2))),
    ("rate_limited_past", "429 with a date in the past", || limited(Retry::date_in(-3600))),
    ("rate_limited_ms", "429 with `retry-after-ms: 50`", || limited(Retry::after_ms("50"))),
    ("rate_limited_both", "429 with `retry-after-ms: 50` and `retry-after: 7`", || {
        limited(Retry { after_ms: Some("50".to_owned()), ..Retry::after("7") })
    }),
    ("rate_limited_nonsense", "429 with a `retry-after` that is neither number nor date", || {
        limited(Retry::after("in a while"))
    }),
    ("rate_limited_hour", "429 with `retry-after: 3600`", || limited(Retry::after("3600"))),
    ("should_retry", "400 with `x-should-retry: true`", || {
        Script::refuse(Fault::status(400)).retry(Retry::should(true))
    }),
    ("should_not_retry", "500 with `x-should-retry: false`", || {
        Script::refuse(Fault::status(500)).retry(Retry::should(false))
    }),
    ("server_error", "500", || Script::refuse(Fault::status(500))),
    ("unavailable", "503", || Script::refuse(Fault::status(503))),
    ("overloaded", "529", || Script::refuse(Fault::status(529))),
    ("bad_gateway_html", "502 with a page of HTML", || {
        Script::body(502, "text/html", "<html><head><title>502 Bad Gateway</title></head></html>\n")
    }),
    ("unavailable_text", "503 with plain text", || Script::body(503, "text/plain", "upstream connect error\n")),
    ("timeout_empty", "504 with an empty body", || Script::steps([]).with_status(504).content_type(None)),
    ("html_200", "a page of HTML with status 200", || {
        Script::body(200, "text/html; charset=utf-8", "<html><body>Please log in</body></html>\n")
    }),
    ("stream_as_html", "a well-formed stream that says it is HTML", || {
        Script::answer(["Mislabelled"]).content_type(Some("text/html"))
    }),
    ("no_content_type", "a well-formed stream that does not say what it is", || {
        Script::answer(["Unlabelled"]).content_type(None)
    }),
    ("whole_json", "the whole answer as one JSON object", || Script::whole("All at once")),
    ("gzip", "a well-formed stream, gzip although not requested", || Script::answer(["Compressed"]).gzip()),
];
