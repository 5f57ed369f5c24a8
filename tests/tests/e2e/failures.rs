//! Providers that fail before the first text or after some: the answer becomes a failed entry that keeps its text and has an
//! error code, and the conversation goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use chatbox_tests::harness::model::{API_KEY, Model};
use chatbox_tests::harness::{Conversation, Dialect};
use chatbox_tests::provider::{Script, Step};
use serde_json::json;

/// A text in the error bodies of the provider. No client may receive it.
const INSIDE: &str = "canary-inside-5d17";

/// Sends a message and expects a failed answer with this code and this text.
async fn fails(chat: &mut Conversation, what: &str, code: &str, retryable: bool, kept: &str) -> Result<()> {
    let answer = chat.ana.converse(&chat.session, what).await?;
    ensure!(answer["state"] == "failed", "{what}: {answer}");
    ensure!(answer["error"] == json!({ "code": code, "retryable": retryable }), "{what}: {answer}");
    ensure!(answer["content"] == kept, "{what}: {answer}");
    Ok(())
}

/// The next message is answered. Neither the provider's own words nor its key were sent to a client or logged.
async fn goes_on(mut chat: Conversation) -> Result<()> {
    chat.provider.script(Script::answer(["well ", "again"]));
    let answer = chat.ana.converse(&chat.session, "and now?").await?;
    ensure!(answer["state"] == "final" && answer["content"] == "well again", "{answer}");
    chat.ana.settle().await?;
    chat.ana.log(&chat.session)?.assert_gapless()?;
    for frame in &chat.ana.frames {
        ensure!(!frame.raw.contains(INSIDE) && !frame.raw.contains(API_KEY), "leaked: {}", frame.raw);
    }
    let output = chat.stack.stop().await?;
    ensure!(!output.contains(API_KEY), "the provider's key is in the log");
    Ok(())
}

fn refusal(status: u16, kind: &str, code: &str) -> Script {
    let error =
        json!({ "error": { "message": format!("{INSIDE} {API_KEY}"), "type": kind, "param": null, "code": code } });
    Script::json(status, &error)
}

#[tokio::test]
async fn a_provider_that_asks_to_wait_is_asked_again_after_that_time() -> Result<()> {
    for dialect in Dialect::ALL {
        let mut chat = Conversation::start(dialect).await?;
        chat.provider.script(refusal(429, "rate_limit_error", "rate_limit_exceeded").header("retry-after", "1"));
        ensure!(chat.ana.converse(&chat.session, "go").await?["state"] == "final", "{dialect:?}: not tried again");
        let calls = chat.calls();
        ensure!(calls.len() == 2, "{dialect:?}: {} calls", calls.len());
        let waited = calls[1].at - calls[0].at;
        ensure!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(4), "{dialect:?}: waited {waited:?}");
        ensure!(calls[0].body == calls[1].body, "the second request is another one");
        goes_on(chat).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_provider_that_keeps_failing_is_given_up_after_its_tries() -> Result<()> {
    let mut chat = Conversation::with_model(Dialect::OpenAi, |model| model.with("max_retries", 2)).await?;
    for _ in 0..3 {
        chat.provider.script(refusal(500, "server_error", "server_error"));
    }
    fails(&mut chat, "three faults", "provider_unavailable", true, "").await?;
    ensure!(chat.calls().len() == 3, "{} calls", chat.calls().len());
    goes_on(chat).await
}

#[tokio::test]
async fn permanent_errors_are_not_retried() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    let table = [
        (401, "invalid_request_error", "invalid_api_key", "provider_rejected"),
        (403, "permission_error", "forbidden", "provider_rejected"),
        (429, "insufficient_quota", "insufficient_quota", "provider_rejected"),
        (404, "invalid_request_error", "model_not_found", "model_unavailable"),
        (400, "invalid_request_error", "content_filter", "content_filtered"),
    ];
    for (index, (status, kind, code, expected)) in table.into_iter().enumerate() {
        chat.provider.script(refusal(status, kind, code));
        fails(&mut chat, &format!("{status} {code}"), expected, false, "").await?;
        ensure!(chat.calls().len() == index + 1, "{status} {code}: {} calls", chat.calls().len());
    }
    goes_on(chat).await
}

#[tokio::test]
async fn answers_that_are_no_stream_fail_clearly() -> Result<()> {
    let mut chat = Conversation::with_model(Dialect::OpenAi, |model| model.with("max_retries", 0)).await?;
    chat.provider.script(Script::no_reply());
    fails(&mut chat, "closed without a word", "provider_unavailable", true, "").await?;
    chat.provider.script(Script::body(502, "text/html", format!("<html>{INSIDE}</html>")));
    fails(&mut chat, "a proxy's page", "provider_unavailable", true, "").await?;
    chat.provider.script(Script::body(200, "text/html", format!("<html>{INSIDE}</html>")));
    fails(&mut chat, "a page with 200", "provider_unavailable", true, "").await?;
    chat.provider.script(Script::steps([]));
    fails(&mut chat, "an empty stream", "provider_unavailable", true, "").await?;
    goes_on(chat).await
}

#[tokio::test]
async fn silence_ends_in_a_timeout_before_and_in_the_middle() -> Result<()> {
    let quick =
        |model: Model| model.with("first_token_timeout_ms", 400).with("idle_timeout_ms", 400).with("max_retries", 0);
    let mut chat = Conversation::with_model(Dialect::OpenAi, quick).await?;
    chat.provider.script(Script::steps([Step::Stall]));
    fails(&mut chat, "not a byte", "provider_timeout", true, "").await?;
    chat.provider.script(Script::steps([Step::Begin, Step::Stall]));
    fails(&mut chat, "not a word", "provider_timeout", true, "").await?;
    chat.provider.script(Script::begun(["half ", "a sen"]).then(Step::Stall));
    fails(&mut chat, "half an answer", "provider_timeout", true, "half a sen").await?;
    goes_on(chat).await
}

#[tokio::test]
async fn an_answer_ends_at_its_total_timeout() -> Result<()> {
    let quick = |model: Model| model.with("total_timeout_ms", 600);
    let mut chat = Conversation::with_model(Dialect::OpenAi, quick).await?;
    let pieces = vec!["x"; 200];
    chat.provider.script(Script::begun(pieces).paced(Duration::from_millis(20)));
    let answer = chat.ana.converse(&chat.session, "go on for ever").await?;
    ensure!(answer["state"] == "failed" && answer["error"]["code"] == "provider_timeout", "{answer}");
    let kept = answer["content"].as_str().unwrap_or_default();
    ensure!(!kept.is_empty() && kept.chars().all(|c| c == 'x'), "{answer}");
    goes_on(chat).await
}

#[tokio::test]
async fn a_stream_that_breaks_keeps_its_text() -> Result<()> {
    for dialect in Dialect::ALL {
        let mut chat = Conversation::start(dialect).await?;
        chat.provider.script(Script::begun(["so ", "far"]).then(Step::Wait(Duration::from_millis(50))).then(Step::Cut));
        fails(&mut chat, "cut", "provider_unavailable", true, "so far").await?;
        chat.provider.script(Script::begun(["so ", "near"]));
        fails(&mut chat, "an end without an end", "provider_unavailable", true, "so near").await?;
        ensure!(chat.calls().len() == 2, "after the first word nothing is tried again: {} calls", chat.calls().len());
        goes_on(chat).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_error_inside_the_stream_keeps_the_text_and_stays_inside() -> Result<()> {
    let events = [
        (
            Dialect::OpenAi,
            format!("data: {{\"error\":{{\"message\":\"{INSIDE}\",\"type\":\"server_error\",\"code\":null}}}}\n\n"),
        ),
        (
            Dialect::Anthropic,
            format!(
                "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"overloaded_error\",\"message\":\"{INSIDE}\"}}}}\n\n"
            ),
        ),
        (
            Dialect::Dify,
            format!(
                "data: {{\"event\":\"error\",\"task_id\":\"t\",\"message_id\":\"m\",\"status\":500,\"code\":\"completion_request_error\",\"message\":\"{INSIDE}\"}}\n\n"
            ),
        ),
    ];
    for (dialect, event) in events {
        let mut chat = Conversation::start(dialect).await?;
        chat.provider.script(Script::begun(["so ", "far"]).then(Step::Bytes(Bytes::from(event))));
        fails(&mut chat, &format!("{dialect:?}"), "provider_unavailable", true, "so far").await?;
        goes_on(chat).await?;
    }
    Ok(())
}

#[tokio::test]
async fn any_text_in_any_pieces_arrives_byte_for_byte() -> Result<()> {
    let text = "Grüße 🦅 \u{2028} \"quoted\" \\ \r\n\t 漢字 \u{202e}rtl\u{202c} e\u{301} end";
    for dialect in Dialect::ALL {
        let mut chat = Conversation::start(dialect).await?;
        let pieces: Vec<String> = text.chars().map(String::from).collect();
        chat.provider.script(Script::answer(pieces).split_every(1));
        let answer = chat.ana.converse(&chat.session, text).await?;
        ensure!(answer["content"] == text, "{dialect:?}: {answer}");
        let asked = chat.ana.log(&chat.session)?.entry(1).map(|seen| seen.content.clone());
        ensure!(asked.as_deref() == Some(text), "{asked:?}");
        let heard = chat.calls()[0].body.to_string();
        ensure!(heard.contains(&serde_json::to_string(text)?), "the provider heard something else: {heard}");
    }
    Ok(())
}
