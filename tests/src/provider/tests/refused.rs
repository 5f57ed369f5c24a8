//! Refusals, replies that are no stream, and their retry headers.

use std::collections::BTreeMap;
use std::io::Read;

use super::*;

async fn refusal(script: Script, path: &str) -> (u16, BTreeMap<String, String>, String) {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(script);
    let response = post(&provider, path).await.unwrap();
    let text =
        |(name, value): (&http::HeaderName, &http::HeaderValue)| (name.to_string(), value.to_str().unwrap().into());
    let (status, headers) = (response.status().as_u16(), response.headers().iter().map(text).collect());
    (status, headers, response.text().await.unwrap())
}

#[tokio::test]
async fn each_protocol_refuses_in_its_own_words() {
    for (path, status, body) in [
        (OPENAI, 401, json!({"error": {"type": "invalid_request_error", "code": "invalid_api_key", "param": null}})),
        (OPENAI, 500, json!({"error": {"type": "server_error", "code": null, "param": null}})),
        (ANTHROPIC, 529, json!({"type": "error", "error": {"type": "overloaded_error"}, "request_id": "req_fake"})),
        (ANTHROPIC, 402, json!({"type": "error", "error": {"type": "billing_error"}, "request_id": "req_fake"})),
        (DIFY, 429, json!({"code": "too_many_requests", "status": 429})),
        (DIFY, 403, json!({"code": "forbidden", "status": 403})),
    ] {
        let (told, headers, text) = refusal(Script::refuse(Fault::status(status)), path).await;
        assert_eq!((told, headers["content-type"].as_str()), (status, "application/json"));
        let mut said: Value = serde_json::from_str(&text).unwrap();
        let holder = said.get("error").is_some();
        let holder = if holder { said.get_mut("error").unwrap() } else { &mut said };
        holder.as_object_mut().unwrap().remove("message").unwrap();
        assert_eq!(said, body);
    }
    let chosen = || Fault { message: Some("m".into()), ..Fault::of(418, "kind", "code") };
    for (path, body) in [
        (OPENAI, r#"{"error":{"code":"code","message":"m","param":null,"type":"kind"}}"#),
        (
            ANTHROPIC,
            r#"{"error":{"details":{"error_code":"code"},"message":"m","type":"kind"},"request_id":"req_fake","type":"error"}"#,
        ),
        (DIFY, r#"{"code":"code","message":"m","status":418}"#),
    ] {
        let (status, _, text) = refusal(Script::refuse(chosen()), path).await;
        assert_eq!((status, text.as_str()), (418, body));
    }
}

#[tokio::test]
async fn every_form_of_retry_after_reaches_the_client() {
    let of = |retry| async { refusal(Script::refuse(Fault::status(429)).retry(retry), OPENAI).await.1 };
    assert_eq!(of(Retry::after("7")).await["retry-after"], "7");
    assert_eq!(of(Retry::after("0.5")).await["retry-after"], "0.5");
    assert_eq!(of(Retry::after("in a while")).await["retry-after"], "in a while");
    assert_eq!(of(Retry::after_ms("50")).await["retry-after-ms"], "50");
    assert_eq!(of(Retry::should(false)).await["x-should-retry"], "false");
    for seconds in [3, -3600] {
        let headers = of(Retry::date_in(seconds)).await;
        let date = &headers["retry-after"];
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    }
    assert!(!of(Retry::default()).await.contains_key("retry-after"));
}

#[tokio::test]
async fn bodies_and_content_types_are_as_wrong_as_asked_for() {
    let of = |name: &'static str| refusal(presets::preset(name).unwrap(), OPENAI);
    let (status, headers, body) = of("bad_gateway_html").await;
    assert_eq!((status, headers["content-type"].as_str()), (502, "text/html"));
    assert!(body.starts_with("<html>"));
    let (status, headers, body) = of("timeout_empty").await;
    assert_eq!((status, headers.contains_key("content-type"), body.as_str()), (504, false, ""));
    assert_eq!(of("unavailable_text").await.2, "upstream connect error\n");
    let (status, headers, body) = of("stream_as_html").await;
    assert_eq!((status, headers["content-type"].as_str()), (200, "text/html"));
    assert!(body.ends_with("data: [DONE]\n\n"));
    assert!(!of("no_content_type").await.1.contains_key("content-type"));
    assert_eq!(of("html_200").await.0, 200);
}

#[tokio::test]
async fn a_whole_reply_comes_although_a_stream_was_asked_for() {
    for path in PATHS {
        let provider = FakeProvider::start().await.unwrap();
        provider.script(Script::whole("All at once"));
        let response = post(&provider, path).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert!(body.to_string().contains("All at once"));
        let call = ended(&provider).await;
        assert_eq!((call.sent.text.as_str(), call.sent.finished), ("All at once", true));
        assert_eq!(call.sent.usage, Some(Usage::new(10, 1)));
    }
}

#[tokio::test]
async fn a_compressed_body_is_gzip() {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(Script::answer(["a"]).gzip());
    let response = post(&provider, OPENAI).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let body = response.bytes().await.unwrap();
    assert!(body.starts_with(&[0x1f, 0x8b, 8]));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, played(Script::answer(["a"]), OPENAI).await);
}
