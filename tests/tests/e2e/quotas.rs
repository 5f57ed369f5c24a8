//! Usage and quotas through the whole stack: records, costs, and the refusal when a quota is used up.

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::binaries::{self, Profile};
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::{Dialect, Stack, StoreAt, ledger, process};
use chatbox_tests::provider::{Call, FakeProvider, Gate, Script, Step};
use serde_json::Value;

fn chats(provider: &FakeProvider) -> usize {
    provider.journal().iter().filter(|call| Call::is_chat(call)).count()
}

async fn start(store: StoreAt, provider: &FakeProvider, quotas: &[(&str, toml::Value)]) -> Result<Stack> {
    let model = Model::at("bird", Dialect::OpenAi, &provider.url())
        .with("max_output_tokens", 100)
        .with("input_price", 2.5)
        .with("output_price", 10.0);
    let mut builder = Stack::builder().store(store).model(model);
    for (key, value) in quotas {
        builder = builder.brain(key, value.clone())?;
    }
    builder.start().await
}

/// Checks a failed answer that names the time at which the quota is renewed.
fn refused(answer: &Value) -> Result<()> {
    ensure!(answer["state"] == "failed" && answer["content"] == "", "{answer}");
    ensure!(answer["error"]["code"] == "quota_exceeded" && answer["error"]["retryable"] == false, "{answer}");
    let until = answer["error"]["retry_at"].as_str().context("no retry_at")?;
    ensure!(until.ends_with("T00:00:00.000Z"), "the day ends at midnight UTC: {until}");
    let said = answer["created_at"].as_str().context("no created_at")?;
    ensure!(until > said, "{until} is not after {said}");
    Ok(())
}

#[tokio::test]
async fn every_call_has_one_record_with_its_numbers_and_its_cost() -> Result<()> {
    for store in [StoreAt::Sqlite, StoreAt::mongodb().await?] {
        let provider = FakeProvider::start().await?;
        let stack = start(store, &provider, &[]).await?;
        let (session, other) = (new_session(), new_session());
        let mut ana = stack.user("ana")?.connect().await?;
        ana.open(&session).await?;
        ana.open(&other).await?;
        let answer = ana.converse(&session, "one").await?;
        ensure!(answer["usage"]["input_tokens"] == 10, "{answer}");
        ana.converse(&other, "two").await?;
        provider.script(Script::begun(["no usage"]).then(Step::FinishWithoutUsage));
        let answer = ana.converse(&session, "three").await?;
        ensure!(answer["usage"]["estimated"] == true, "{answer}");
        let records = ledger::settled(&stack).await?;
        let calls: Vec<Call> = provider.journal().into_iter().filter(Call::is_chat).collect();
        ensure!(records.len() == 3 && calls.len() == 3, "{records:#?}");
        for call in &calls {
            let id = call.headers.get("x-client-request-id").context("the provider was told no id")?;
            let record = records.get(id).with_context(|| format!("no record of {id}"))?;
            ensure!(
                (record.user.as_str(), record.model.as_str(), record.provider.as_str()) == ("ana", "bird", "openai"),
                "{record:?}"
            );
            ensure!(
                (record.purpose.as_str(), record.finish.as_str(), record.attempt) == ("answer", "stop", 1),
                "{record:?}"
            );
            ensure!(record.first_token_ms.is_some_and(|first| first <= record.total_ms), "{record:?}");
            ensure!(record.cost == Some(record.input * 2500 + record.output * 10_000), "{record:?}");
            ensure!(record.estimated == (record.input != 10), "{record:?}");
        }
        // The session summary has the sum of the session's records.
        let said = ana.open(&session).await?;
        let sum: i64 = records.values().filter(|record| record.session == session).map(|record| record.input).sum();
        ensure!(said.at("/session/tokens/input") == sum, "{} instead of {sum}", said.raw);
        // The `usage` command prints the sum of the user's records.
        let mut launch = stack.brain_command("usage");
        launch.args.splice(1..1, ["--user", "ana"].map(str::to_owned));
        let printed = process::run(&binaries::find("brain", Profile::Same)?, &launch).await?;
        let days: Vec<Value> =
            printed.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let all = |number: fn(&ledger::Record) -> i64| records.values().map(number).sum::<i64>();
        let sum = |field: &str| days.iter().filter_map(|day| day[field].as_i64()).sum::<i64>();
        ensure!(printed.status.success() && (1..=2).contains(&days.len()), "{printed:?}");
        ensure!(sum("calls") == 3 && sum("input_tokens") == all(|it| it.input), "{days:?}");
        ensure!(sum("output_tokens") == all(|it| it.output), "{days:?}");
        ensure!(sum("cost_billionths") == all(|it| it.cost.unwrap_or(0)), "{days:?}");
        // Deleting a session keeps its records.
        ana.ask_ok(serde_json::json!({ "type": "session_delete", "session_id": other })).await?;
        ensure!(ledger::records(&stack).await?.len() == 3, "a record is gone");
    }
    Ok(())
}

#[tokio::test]
async fn a_used_up_quota_is_told_with_its_end_and_other_users_go_on() -> Result<()> {
    let provider = FakeProvider::start().await?;
    let stack = start(StoreAt::Sqlite, &provider, &[("quotas.tokens_per_day", 300.into())]).await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    provider.script(Script::begun(["x"]).then(Step::Finish { input: 150, output: 60 }));
    let answer = ana.converse(&session, "one").await?;
    ensure!(answer["state"] == "final", "{answer}");
    ledger::settled(&stack).await?;
    // 210 of 300 are used: the next answer may take 100 and its prompt.
    let answer = ana.converse(&session, "two").await?;
    refused(&answer)?;
    ensure!(chats(&provider) == 1, "{} calls", chats(&provider));
    // The message is stored, so that it can be answered later.
    ensure!(ana.log(&session)?.entry(3).is_some_and(|seen| seen.content == "two"), "the message is gone");
    let (mut bob, theirs) = (stack.user("bob")?.connect().await?, new_session());
    bob.open(&theirs).await?;
    let answer = bob.converse(&theirs, "one").await?;
    ensure!(answer["state"] == "final", "{answer}");
    ledger::settled(&stack).await?;
    Ok(())
}

#[tokio::test]
async fn an_answer_larger_than_the_daily_quota_is_refused_without_a_time() -> Result<()> {
    let provider = FakeProvider::start().await?;
    let stack = start(StoreAt::Sqlite, &provider, &[("quotas.tokens_per_day", 50.into())]).await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    let answer = ana.converse(&session, "one").await?;
    ensure!(answer["error"] == serde_json::json!({"code": "quota_exceeded", "retryable": false}), "{answer}");
    Ok(())
}

#[tokio::test]
async fn costs_have_a_quota_of_their_own() -> Result<()> {
    let provider = FakeProvider::start().await?;
    // An answer reserves 100 tokens at 10 per million, which is 0.001, and a little for the prompt.
    let stack = start(StoreAt::Sqlite, &provider, &[("quotas.cost_per_day", 0.0018.into())]).await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    provider.always(Script::begun(["x"]).then(Step::Finish { input: 10, output: 100 }));
    let answer = ana.converse(&session, "one").await?;
    ensure!(answer["state"] == "final", "{answer}");
    ledger::settled(&stack).await?;
    refused(&ana.converse(&session, "two").await?)?;
    Ok(())
}

#[tokio::test]
async fn calls_at_the_same_time_cannot_overshoot() -> Result<()> {
    for store in [StoreAt::Sqlite, StoreAt::mongodb().await?] {
        let provider = FakeProvider::start().await?;
        // Room for three: each reserves its prompt (a few tokens) and 100.
        let stack = start(store, &provider, &[("quotas.tokens_per_day", 400.into())]).await?;
        let gate = Gate::new();
        provider.always(Script::begun(["x"]).then(Step::Hold(gate.clone())).then(Step::Finish { input: 5, output: 1 }));
        let mut ana: Connection = stack.user("ana")?.connect().await?;
        let sessions: Vec<String> = (0..10).map(|_| new_session()).collect();
        for session in &sessions {
            ana.open(session).await?;
            ana.say(session, "go").await?;
        }
        // Seven are refused while three run.
        let mut failed = 0;
        for session in &sessions {
            let state = ana
                .log_until(session, "an answer", |log| {
                    log.answer_to(1)
                        .filter(|(_, seen)| !seen.content.is_empty() || !seen.streaming())
                        .map(|(_, seen)| seen.entry.clone())
                })
                .await?;
            if state["state"] == "failed" {
                refused(&state)?;
                failed += 1;
            }
        }
        ensure!(failed == 7 && chats(&provider) == 3, "{failed} refused, {} calls", chats(&provider));
        gate.open();
        for session in &sessions {
            ana.answer(session, 1).await?;
        }
        let records = ledger::settled(&stack).await?;
        ensure!(records.len() == 3, "{records:#?}");
        // The unused part of the reservations is free again.
        let more = new_session();
        ana.open(&more).await?;
        let answer = ana.converse(&more, "again").await?;
        ensure!(answer["state"] == "final", "{answer}");
    }
    Ok(())
}
