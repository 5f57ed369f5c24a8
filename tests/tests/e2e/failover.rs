//! Fallback models: the user sees one answer, and the entry names the model that gave it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chatbox_tests::harness::brains::metric;
use chatbox_tests::harness::connection::new_session;
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::waits::eventually;
use chatbox_tests::harness::{Conversation, Dialect, Stack, ledger, raw_http};
use chatbox_tests::provider::dialect::openai;
use chatbox_tests::provider::{Call, FakeProvider, Gate, Script, Step};
use serde_json::{Value, json};

/// A conversation with a model that falls back to another one, and the provider of the other one.
async fn start(second: Dialect, change: impl FnOnce(Model) -> Model) -> Result<(Conversation, FakeProvider)> {
    let (provider, other) = (FakeProvider::start().await?, FakeProvider::start().await?);
    let bird =
        Model::at("bird", Dialect::OpenAi, &provider.url()).with("fallback", vec!["fish"]).with("max_retries", 0);
    let fish = Model::at("fish", second, &other.url()).with("max_retries", 0);
    let stack = Stack::builder().model(change(bird)).model(fish).start().await?;
    Ok((Conversation::on(provider, stack).await?, other))
}

/// Every `entry` frame of the answer to `seq`, in the order in which they came.
fn entries(chat: &Conversation, seq: u64) -> Vec<Value> {
    let about = chat.ana.frames.iter().filter(|frame| frame.number("/entry/reply_to_seq") == Some(seq));
    about.map(|frame| frame.at("/entry").clone()).collect()
}

fn refusals() -> Vec<(&'static str, Script)> {
    let refusal = |status, kind, code| openai::refusal(status, kind, code, "no");
    vec![
        ("500", refusal(500, "server_error", "server_error")),
        ("503", refusal(503, "service_unavailable_error", "server_is_overloaded")),
        ("529", Script::body(529, "text/html", "<html>busy</html>")),
        ("401", refusal(401, "invalid_request_error", "invalid_api_key")),
        ("quota", refusal(429, "insufficient_quota", "insufficient_quota")),
        ("no such model", refusal(404, "invalid_request_error", "model_not_found")),
        ("closed without a word", Script::no_reply()),
        ("cut before the first word", Script::steps([Step::Begin, Step::Cut])),
        ("an end without an end", Script::steps([Step::Begin])),
        (
            "an error before the first word",
            Script::steps([Step::Begin]).then(Step::Bytes(openai::fault_event("server_error", "x", "no"))),
        ),
    ]
}

#[tokio::test]
async fn a_fallback_answers_if_the_model_fails_before_its_first_text() -> Result<()> {
    for second in Dialect::ALL {
        let (mut chat, other) = start(second, |model| model.with("breaker_failures", 100)).await?;
        for (index, (what, script)) in refusals().into_iter().enumerate() {
            chat.provider.script(script);
            other.script(Script::answer(["from ", "the fish"]));
            let answer = chat.ana.converse(&chat.session, what).await?;
            ensure!(answer["content"] == "from the fish" && answer["state"] == "final", "{what}: {answer}");
            ensure!(answer["model_id"] == "fish" && answer["attempt"] == 1, "{what}: {answer}");
            let seq = answer["reply_to_seq"].as_u64().context("no reply_to_seq")?;
            let states: Vec<_> = entries(&chat, seq).iter().map(|entry| entry["state"].clone()).collect();
            ensure!(states == ["streaming", "final"], "{what}: {states:?}");
            ensure!(chat.calls().len() == index + 1 && other.chat_calls().len() == index + 1, "{what}");
        }
        ensure!(!chat.ana.frames.iter().any(|frame| frame.is("error") || frame.is("notice")), "the client was told");
        let records = ledger::settled(&chat.stack).await?;
        let failed = records.values().filter(|record| record.model == "bird" && record.finish == "failed").count();
        ensure!(failed == refusals().len() && records.len() == 2 * failed, "{records:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn after_the_first_word_another_model_begins_anew_and_nothing_is_shown_twice() -> Result<()> {
    for second in Dialect::ALL {
        let (mut chat, other) = start(second, |model| model).await?;
        let gate = Gate::new();
        chat.provider.script(Script::begun(["half ", "a sen"]).then(Step::Hold(gate.clone())).then(Step::Cut));
        other.script(Script::answer(["a whole ", "sentence"]));
        let seq = chat.ana.say(&chat.session, "go").await?.number("/seq").context("no seq")?;
        chat.ana.shown(&chat.session, seq, "half a sen").await?;
        gate.open();
        let answer = chat.ana.answer(&chat.session, seq).await?;
        ensure!(answer["content"] == "a whole sentence" && answer["model_id"] == "fish", "{answer}");
        ensure!(
            answer["attempt"] == 2
                && answer["usage"] == json!({"input_tokens": 10, "output_tokens": 2, "estimated": false}),
            "{answer}"
        );
        let seen: Vec<_> = entries(&chat, seq)
            .iter()
            .map(|entry| (entry["state"].clone(), entry["attempt"].clone(), entry["content"].clone()))
            .collect();
        let expected = [
            (json!("streaming"), json!(1), json!("")),
            (json!("streaming"), json!(2), json!("")),
            (json!("final"), json!(2), json!("a whole sentence")),
        ];
        ensure!(seen == expected, "{seen:?}");
        // A device that joins later gets the same log.
        let mut laptop = chat.stack.user("ana")?.device("laptop").connect().await?;
        laptop.open(&chat.session).await?;
        laptop.log(&chat.session)?.assert_same(chat.ana.log(&chat.session)?)?;
        let records = ledger::settled(&chat.stack).await?;
        let mut calls: Vec<_> = records
            .values()
            .map(|it| (it.attempt, it.model.as_str(), it.finish.as_str(), it.output, it.estimated))
            .collect();
        calls.sort_unstable();
        let expected = [(1, "bird", "failed", 3, true), (2, "fish", "stop", 2, false)];
        ensure!(
            calls.len() == 2
                && calls[0].3 > 0
                && calls[1] == expected[1]
                && (calls[0].1, calls[0].2) == ("bird", "failed"),
            "{calls:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_fallback_that_says_nothing_takes_nothing_away() -> Result<()> {
    let (mut chat, other) = start(Dialect::OpenAi, |model| model).await?;
    chat.provider
        .script(Script::begun(["what ", "there is"]).then(Step::Wait(Duration::from_millis(30))).then(Step::Cut));
    other.script(openai::refusal(500, "server_error", "server_error", "no"));
    let answer = chat.ana.converse(&chat.session, "go").await?;
    ensure!(answer["content"] == "what there is" && answer["state"] == "failed", "{answer}");
    ensure!(answer["model_id"] == "bird" && answer["attempt"] == 1, "{answer}");
    ensure!(answer["error"] == json!({"code": "provider_unavailable", "retryable": true}), "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_fallback_is_not_asked_for_an_answer_that_content_rules_withheld() -> Result<()> {
    let (mut chat, other) = start(Dialect::OpenAi, |model| model).await?;
    chat.provider.script(openai::refusal(400, "invalid_request_error", "content_filter", "no"));
    let answer = chat.ana.converse(&chat.session, "go").await?;
    ensure!(answer["error"]["code"] == "content_filtered" && other.chat_calls().is_empty(), "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_circuit_opens_is_probed_and_closes_and_metrics_show_it() -> Result<()> {
    let (mut chat, _other) =
        start(Dialect::OpenAi, |model| model.with("breaker_failures", 3).with("breaker_open_ms", 1500)).await?;
    let ops = chat.stack.brain_ops();
    let address = chat.provider.addr();
    let circuit = async |state: &str| {
        let line =
            format!("chatbox_brain_endpoint_circuit{{endpoint=\"openai http://{address}/v1\",state=\"{state}\"}} 1");
        eventually(&line, || async {
            let shown = raw_http::get(ops, "/metrics").await?.text();
            ensure!(shown.lines().any(|shown| shown == line), "{shown}");
            Ok(())
        })
        .await
    };
    circuit("closed").await?;
    chat.provider.always(openai::refusal(500, "server_error", "server_error", "no"));
    for _ in 0..6 {
        let answer = chat.ana.converse(&chat.session, "go").await?;
        ensure!(answer["model_id"] == "fish", "{answer}");
    }
    let calls = chat.calls().len();
    ensure!(calls == 3, "the endpoint was called {calls} times");
    circuit("open").await?;
    circuit("half_open").await?;
    // The first probe fails and opens the circuit again. The second one succeeds.
    chat.ana.converse(&chat.session, "probe").await?;
    ensure!(chat.calls().len() == 4, "{} calls", chat.calls().len());
    circuit("open").await?;
    chat.provider.always(Script::answer(["I am ", "back"]));
    circuit("half_open").await?;
    let answer = chat.ana.converse(&chat.session, "probe again").await?;
    ensure!(answer["model_id"] == "bird" && answer["content"] == "I am back", "{answer}");
    circuit("closed").await
}

#[tokio::test]
async fn calls_above_the_limit_of_an_endpoint_wait_in_turn() -> Result<()> {
    let provider = FakeProvider::start().await?;
    let model = Model::at("bird", Dialect::OpenAi, &provider.url()).with("max_concurrent", 1).with("max_queued", 3);
    let stack = Stack::builder().model(model).start().await?;
    let gate = Gate::new();
    provider.always(Script::steps([
        Step::Hold(gate.clone()),
        Step::Begin,
        Step::Delta("done".into()),
        Step::Finish { input: 1, output: 1 },
    ]));
    let (mut hot, mut bob) = (stack.user("hot")?.connect().await?, stack.user("bob")?.connect().await?);
    // One call runs and three wait: two of the busy user and one of bob, who came last. There is no room for another one.
    let mut asked = Vec::new();
    for n in 0..3 {
        let session = new_session();
        hot.open(&session).await?;
        hot.say(&session, &format!("hot {n}")).await?;
        asked.push(session);
        let running = if n == 0 { 1 } else { 0 };
        eventually("the call or the queue", || async {
            ensure!(provider.chat_calls().len() >= running, "not called yet");
            let queued = metric(
                stack.brain_ops(),
                &format!("chatbox_brain_endpoint_queued{{endpoint=\"openai http://{}/v1\"}}", provider.addr()),
            )
            .await?;
            ensure!(queued == n, "{queued} wait");
            Ok(())
        })
        .await?;
    }
    let cool = new_session();
    bob.open(&cool).await?;
    let seq = bob.say(&cool, "bob").await?.number("/seq").context("no seq")?;
    eventually("bob waits", || async {
        let queued = metric(
            stack.brain_ops(),
            &format!("chatbox_brain_endpoint_queued{{endpoint=\"openai http://{}/v1\"}}", provider.addr()),
        )
        .await?;
        ensure!(queued == 3, "{queued} wait");
        Ok(())
    })
    .await?;
    let full = new_session();
    bob.open(&full).await?;
    let answer = bob.converse(&full, "one too many").await?;
    ensure!(
        answer["state"] == "failed" && answer["error"] == json!({"code": "provider_unavailable", "retryable": true}),
        "{answer}"
    );
    gate.open();
    bob.answer(&cool, seq).await?;
    for session in &asked {
        hot.answer(session, 1).await?;
    }
    let order: Vec<String> = provider
        .chat_calls()
        .iter()
        .map(|call| call.body["messages"][0]["content"].as_str().unwrap_or_default().to_owned())
        .collect();
    ensure!(order == ["hot 0", "hot 1", "bob", "hot 2"], "{order:?}");
    ledger::settled(&stack).await?;
    Ok(())
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_sent_once_more_with_less_history() -> Result<()> {
    let provider = FakeProvider::start().await?;
    let stack = Stack::builder().model(Model::at("bird", Dialect::OpenAi, &provider.url())).start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    for n in 0..6 {
        provider.script(Script::answer([format!("answer {n} {}", "word ".repeat(50))]));
        ana.converse(&session, &format!("question {n} 🦅")).await?;
    }
    let too_long = || openai::refusal(400, "invalid_request_error", "context_length_exceeded", "too long");
    provider.script(too_long());
    let answer = ana.converse(&session, "and now?").await?;
    ensure!(answer["state"] == "final", "{answer}");
    let calls = provider.chat_calls();
    let messages = |call: &Call| call.body["messages"].as_array().cloned().unwrap_or_default();
    let (long, short) = (messages(&calls[6]), messages(&calls[7]));
    ensure!(calls.len() == 8 && short.len() < long.len() && !short.is_empty(), "{} then {}", long.len(), short.len());
    ensure!(long.ends_with(&short), "whole messages, the newest ones: {short:?}");

    provider.script(too_long());
    provider.script(too_long());
    let answer = ana.converse(&session, "once more?").await?;
    ensure!(answer["error"]["code"] == "provider_rejected" && provider.chat_calls().len() == 10, "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_message_sent_while_an_answer_streams_is_answered_next() -> Result<()> {
    let (mut chat, _other) = start(Dialect::OpenAi, |model| model).await?;
    let gate = Gate::new();
    chat.provider
        .script(Script::begun(["one"]).then(Step::Hold(gate.clone())).then(Step::Finish { input: 1, output: 1 }));
    chat.provider.script(Script::answer(["two"]));
    let first = chat.ana.say(&chat.session, "first").await?.number("/seq").context("no seq")?;
    chat.ana.shown(&chat.session, first, "one").await?;
    let second = chat.ana.say(&chat.session, "second").await?.number("/seq").context("no seq")?;
    chat.ana.settle().await?;
    ensure!(chat.calls().len() == 1, "the second was not to be answered yet");
    gate.open();
    let answers = [chat.ana.answer(&chat.session, first).await?, chat.ana.answer(&chat.session, second).await?];
    ensure!(answers[0]["content"] == "one" && answers[1]["content"] == "two", "{answers:?}");
    ensure!(chat.calls()[1].body["messages"].to_string().contains("first"), "in the order of the conversation");
    Ok(())
}

#[tokio::test]
async fn a_stop_ends_one_answer_and_the_message_behind_it_gets_its_own() -> Result<()> {
    let (mut chat, _other) = start(Dialect::OpenAi, |model| model).await?;
    for round in 0..20 {
        chat.provider.script(Script::begun(["one"]).then(Step::Stall));
        chat.provider.script(Script::answer(["two"]));
        let first = chat.ana.say(&chat.session, "first").await?.number("/seq").context("no seq")?;
        chat.ana.shown(&chat.session, first, "one").await?;
        let second = chat.ana.say(&chat.session, "second").await?.number("/seq").context("no seq")?;
        chat.ana.ask_ok(json!({ "type": "stop_generation", "session_id": chat.session })).await?;
        let stopped = chat.ana.answer(&chat.session, first).await?;
        ensure!(stopped["finish_reason"] == "stopped" && stopped["content"] == "one", "{round}: {stopped}");
        let answer = chat.ana.answer(&chat.session, second).await?;
        ensure!(answer["finish_reason"] == "stop" && answer["content"] == "two", "{round}: {answer}");
    }
    ledger::settled(&chat.stack).await?;
    Ok(())
}

#[tokio::test]
async fn a_stop_is_kept_from_calling_the_fallback() -> Result<()> {
    let (mut chat, other) = start(Dialect::OpenAi, |model| model).await?;
    chat.provider.script(Script::begun(["so far"]).then(Step::Bytes(Bytes::new())).then(Step::Stall));
    let seq = chat.ana.say(&chat.session, "go").await?.number("/seq").context("no seq")?;
    chat.ana.shown(&chat.session, seq, "so far").await?;
    chat.ana.ask_ok(json!({ "type": "stop_generation", "session_id": chat.session })).await?;
    let answer = chat.ana.answer(&chat.session, seq).await?;
    ensure!(answer["finish_reason"] == "stopped" && answer["content"] == "so far", "{answer}");
    let records = ledger::settled(&chat.stack).await?;
    let finishes: Vec<_> = records.values().map(|record| record.finish.as_str()).collect();
    ensure!(finishes == ["stopped"] && other.chat_calls().is_empty(), "{records:?}");
    Ok(())
}
