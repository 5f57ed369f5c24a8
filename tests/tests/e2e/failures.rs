//! Providers that fail, before the first word and in the middle: the answer becomes a failed entry that keeps its text
//! and says what a client may know, and the conversation goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::model::{API_KEY, Model};
use chatbox_tests::harness::{Dialect, Stack};
use chatbox_tests::provider::{Call, ProviderDouble, Script, Step};
use serde_json::{Value, json};

/// What a provider says about its inside; no client may ever see it.
const INSIDE: &str = "canary-inside-5d17";

/// A stack with one model whose provider does what the scripts say, and a session on it.
struct Talk {
    double: ProviderDouble,
    stack: Stack,
    ana: Connection,
    session: String,
}

impl Talk {
    async fn start(dialect: Dialect, change: impl FnOnce(Model) -> Model) -> Result<Self> {
        let double = ProviderDouble::start().await?;
        let model = change(Model::at("bird", dialect, &double.url()));
        let stack = Stack::builder().model(model).start().await?;
        let session = new_session();
        let mut ana = stack.user("ana")?.connect().await?;
        ana.open(&session).await?;
        Ok(Self { double, stack, ana, session })
    }

    /// Says something and expects a failed answer with this code and this kept text.
    async fn fails(&mut self, what: &str, code: &str, retryable: bool, kept: &str) -> Result<Value> {
        let answer = self.ana.converse(&self.session, what).await?;
        ensure!(answer["state"] == "failed", "{what}: {answer}");
        ensure!(answer["error"] == json!({ "code": code, "retryable": retryable }), "{what}: {answer}");
        ensure!(answer["content"] == kept, "{what}: {answer}");
        Ok(answer)
    }

    /// The next message is answered, and nothing of the provider's inside or its key has come out.
    async fn goes_on(&mut self) -> Result<()> {
        self.double.script(Script::answer(["well ", "again"]));
        let answer = self.ana.converse(&self.session, "and now?").await?;
        ensure!(answer["state"] == "final" && answer["content"] == "well again", "{answer}");
        self.ana.settle().await?;
        self.ana.log(&self.session)?.assert_gapless()?;
        for frame in &self.ana.frames {
            ensure!(!frame.raw.contains(INSIDE) && !frame.raw.contains(API_KEY), "leaked: {}", frame.raw);
        }
        ensure!(!self.stack.output().contains(API_KEY), "the provider's key is in the log");
        Ok(())
    }

    fn calls(&self) -> Vec<Call> {
        self.double.journal().into_iter().filter(Call::is_chat).collect()
    }
}

fn refusal(status: u16, kind: &str, code: &str) -> Script {
    let error =
        json!({ "error": { "message": format!("{INSIDE} {API_KEY}"), "type": kind, "param": null, "code": code } });
    Script::json(status, &error)
}

#[tokio::test]
async fn a_provider_that_asks_to_wait_is_asked_again_after_that_time() -> Result<()> {
    for dialect in Dialect::ALL {
        let mut talk = Talk::start(dialect, |model| model).await?;
        talk.double.script(refusal(429, "rate_limit_error", "rate_limit_exceeded").header("retry-after", "1"));
        talk.goes_on().await?;
        let calls = talk.calls();
        ensure!(calls.len() == 2, "{dialect:?}: {} calls", calls.len());
        let waited = calls[1].at - calls[0].at;
        ensure!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(4), "{dialect:?}: waited {waited:?}");
        ensure!(calls[0].body == calls[1].body, "the second request is another one");
    }
    Ok(())
}

#[tokio::test]
async fn a_provider_that_keeps_failing_is_given_up_after_its_tries() -> Result<()> {
    let mut talk = Talk::start(Dialect::OpenAi, |model| model.with("max_retries", 2)).await?;
    for _ in 0..3 {
        talk.double.script(refusal(500, "server_error", "server_error"));
    }
    talk.fails("three faults", "provider_unavailable", true, "").await?;
    ensure!(talk.calls().len() == 3, "{} calls", talk.calls().len());
    talk.goes_on().await
}

#[tokio::test]
async fn what_trying_again_does_not_mend_is_not_tried_again() -> Result<()> {
    let mut talk = Talk::start(Dialect::OpenAi, |model| model).await?;
    let table = [
        (401, "invalid_request_error", "invalid_api_key", "provider_rejected"),
        (403, "permission_error", "forbidden", "provider_rejected"),
        (429, "insufficient_quota", "insufficient_quota", "provider_rejected"),
        (404, "invalid_request_error", "model_not_found", "model_unavailable"),
        (400, "invalid_request_error", "content_filter", "content_filtered"),
    ];
    for (index, (status, kind, code, expected)) in table.into_iter().enumerate() {
        talk.double.script(refusal(status, kind, code));
        talk.fails(&format!("{status} {code}"), expected, false, "").await?;
        ensure!(talk.calls().len() == index + 1, "{status} {code}: {} calls", talk.calls().len());
    }
    talk.goes_on().await
}

#[tokio::test]
async fn answers_that_are_no_stream_fail_clearly() -> Result<()> {
    let mut talk = Talk::start(Dialect::OpenAi, |model| model.with("max_retries", 0)).await?;
    talk.double.script(Script::no_reply());
    talk.fails("closed without a word", "provider_unavailable", true, "").await?;
    talk.double.script(Script::body(502, "text/html", format!("<html>{INSIDE}</html>")));
    talk.fails("a proxy's page", "provider_unavailable", true, "").await?;
    talk.double.script(Script::body(200, "text/html", format!("<html>{INSIDE}</html>")));
    talk.fails("a page with 200", "provider_unavailable", true, "").await?;
    talk.double.script(Script::steps([]));
    talk.fails("an empty stream", "provider_unavailable", true, "").await?;
    talk.goes_on().await
}

#[tokio::test]
async fn silence_ends_in_a_timeout_before_and_in_the_middle() -> Result<()> {
    let quick =
        |model: Model| model.with("first_token_timeout_ms", 400).with("idle_timeout_ms", 400).with("max_retries", 0);
    let mut talk = Talk::start(Dialect::OpenAi, quick).await?;
    talk.double.script(Script::steps([Step::Stall]));
    talk.fails("not a byte", "provider_timeout", true, "").await?;
    talk.double.script(Script::steps([Step::Begin, Step::Stall]));
    talk.fails("not a word", "provider_timeout", true, "").await?;
    talk.double.script(Script::begun(["half ", "a sen"]).then(Step::Stall));
    talk.fails("half an answer", "provider_timeout", true, "half a sen").await?;
    talk.goes_on().await
}

#[tokio::test]
async fn an_answer_as_a_whole_has_its_time() -> Result<()> {
    let quick = |model: Model| model.with("total_timeout_ms", 600);
    let mut talk = Talk::start(Dialect::OpenAi, quick).await?;
    let pieces = vec!["x"; 200];
    talk.double.script(Script::begun(pieces).paced(Duration::from_millis(20)));
    let answer = talk.ana.converse(&talk.session, "go on for ever").await?;
    ensure!(answer["state"] == "failed" && answer["error"]["code"] == "provider_timeout", "{answer}");
    let kept = answer["content"].as_str().unwrap_or_default();
    ensure!(!kept.is_empty() && kept.chars().all(|c| c == 'x'), "{answer}");
    talk.goes_on().await
}

#[tokio::test]
async fn a_stream_that_breaks_keeps_its_text() -> Result<()> {
    for dialect in Dialect::ALL {
        let mut talk = Talk::start(dialect, |model| model).await?;
        talk.double.script(Script::begun(["so ", "far"]).then(Step::Wait(Duration::from_millis(50))).then(Step::Cut));
        talk.fails("cut", "provider_unavailable", true, "so far").await?;
        talk.double.script(Script::begun(["so ", "near"]));
        talk.fails("an end without an end", "provider_unavailable", true, "so near").await?;
        ensure!(talk.calls().len() == 2, "after the first word nothing is tried again: {} calls", talk.calls().len());
        talk.goes_on().await?;
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
        let mut talk = Talk::start(dialect, |model| model).await?;
        talk.double.script(Script::begun(["so ", "far"]).then(Step::Bytes(Bytes::from(event))));
        talk.fails(&format!("{dialect:?}"), "provider_unavailable", true, "so far").await?;
        talk.goes_on().await?;
    }
    Ok(())
}

#[tokio::test]
async fn any_text_in_any_pieces_arrives_byte_for_byte() -> Result<()> {
    let text = "Grüße 🦅 \u{2028} \"quoted\" \\ \r\n\t 漢字 \u{202e}rtl\u{202c} e\u{301} end";
    for dialect in Dialect::ALL {
        let mut talk = Talk::start(dialect, |model| model).await?;
        let pieces: Vec<String> = text.chars().map(String::from).collect();
        talk.double.script(Script::answer(pieces).split_every(1));
        let answer = talk.ana.converse(&talk.session, text).await?;
        ensure!(answer["content"] == text, "{dialect:?}: {answer}");
        let asked = talk.ana.log(&talk.session)?.entry(1).map(|seen| seen.content.clone());
        ensure!(asked.as_deref() == Some(text), "{asked:?}");
        let heard = talk.calls()[0].body.to_string();
        ensure!(heard.contains(&serde_json::to_string(text)?), "the provider heard something else: {heard}");
    }
    Ok(())
}
