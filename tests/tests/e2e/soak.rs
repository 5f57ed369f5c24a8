//! Many answers through providers that fail at random: each message gets exactly one answer, each call one record, and no
//! provider is called more often than the rules allow. The seed is printed; `CHATBOX_SEED` repeats the choices of a run,
//! `CHATBOX_SOAK_ANSWERS` changes the number of answers.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::ledger::{self, Record};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::start::Builder;
use chatbox_tests::harness::{Dialect, Stack, StoreAt, at_rest};
use chatbox_tests::provider::{Call, FakeProvider, Mix};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::JoinSet;

/// Retries of one model.
const RETRIES: usize = 2;
/// How many owners an answer may have (`answers.max_attempts`).
const MAX_OWNERS: usize = 5;
/// Models, each with the other two as fallbacks.
const MODELS: [(&str, Dialect); 3] = [("bird", Dialect::OpenAi), ("fish", Dialect::Anthropic), ("app", Dialect::Dify)];
/// How long a call that was lost with its brain may stay without a record: the time a call may take and the 30 s after
/// which its reservation expires, times 1.5.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Errors after which a model is never called again.
const FOR_GOOD: [&str; 7] =
    ["auth", "quota", "rejected", "context_length", "not_found", "content_filtered", "protocol"];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[expect(clippy::print_stdout, reason = "the seed is needed to repeat a failed run")]
fn say(what: &str) {
    println!("{what}");
}

/// The seed of this run.
fn seed() -> u64 {
    let seed = number("CHATBOX_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    say(&format!("CHATBOX_SEED={seed}"));
    seed
}

/// The providers, all of which fail at random.
struct Providers(Vec<FakeProvider>);

impl Providers {
    async fn start(seed: u64) -> Result<Self> {
        let mix = Mix { stall: 1, max_pieces: 12, max_pace_ms: 3, ..Mix::default() };
        let mut providers = Vec::new();
        for index in 0..MODELS.len() {
            let provider = FakeProvider::start().await?;
            provider.random(seed + u64::try_from(index)?, mix.clone());
            providers.push(provider);
        }
        Ok(Self(providers))
    }

    fn builder(&self) -> Result<Builder> {
        let mut builder = Stack::builder()
            .brain("provider.max_retries", i64::try_from(RETRIES)?)?
            .brain("provider.idle_timeout_ms", 400)?
            .brain("provider.first_token_timeout_ms", 1500)?
            .brain("provider.total_timeout_ms", 15_000)?
            .brain("provider.breaker_open_ms", 100)?;
        for (index, (id, dialect)) in MODELS.into_iter().enumerate() {
            let others: Vec<&str> = (1..3).map(|step| MODELS[(index + step) % 3].0).collect();
            let model = Model::at(id, dialect, &self.0[index].url());
            builder = builder.model(model.with("fallback", others).with("input_price", 1.5).with("output_price", 6.0));
        }
        Ok(builder)
    }

    /// Every request for an answer, by its id.
    fn calls(&self) -> Result<BTreeMap<String, Call>> {
        let all = self.0.iter().flat_map(FakeProvider::journal).filter(Call::is_chat);
        let mut calls = BTreeMap::new();
        for call in all {
            let id = call.request_id().context("a call without an id")?.to_owned();
            ensure!(calls.insert(id.clone(), call).is_none(), "{id} was called twice");
        }
        Ok(calls)
    }
}

/// One user who sends messages and stops some answers. `killed`: the last deltas of an answer may be lost with a brain.
async fn ask(
    mut connection: Connection,
    model: &'static str,
    rounds: u64,
    seed: u64,
    killed: bool,
) -> Result<(Connection, String)> {
    let mut random = StdRng::seed_from_u64(seed);
    let session = new_session();
    connection
        .open_with(json!({ "type": "session_open", "session_id": session, "create": true, "model_id": model }))
        .await?;
    if killed {
        connection.may_miss_deltas(&session);
        // Several owners of one answer may be killed, one after the other.
        connection.set_timeout(Duration::from_secs(40));
    }
    for round in 0..rounds {
        let ack = connection.say(&session, &format!("question {round} of {seed} 🦅")).await?;
        let seq = ack.number("/seq").context("no seq")?;
        if random.random_range(0..12) == 0 {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..30))).await;
            connection.ask_ok(json!({ "type": "stop_generation", "session_id": session })).await?;
        }
        connection.answer(&session, seq).await?;
    }
    connection.settle().await?;
    Ok((connection, session))
}

/// Each message has exactly one answer, which has ended, and a failed one names its error.
fn one_answer_each(connection: &Connection, session: &str, rounds: u64) -> Result<()> {
    let log = connection.log(session)?;
    log.assert_gapless()?;
    let mut answers: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, seen) in log.entries() {
        if let Some(asked) = seen.entry["reply_to_seq"].as_u64() {
            *answers.entry(asked).or_default() += 1;
            let (state, error) = (&seen.entry["state"], &seen.entry["error"]["code"]);
            ensure!(state == "final" || (state == "failed" && error.is_string()), "{}", seen.entry);
        } else {
            answers.entry(seen.entry["seq"].as_u64().unwrap_or_default()).or_default();
        }
    }
    ensure!(answers.len() as u64 == rounds, "{} messages", answers.len());
    ensure!(answers.values().all(|count| *count == 1), "{answers:?}");
    Ok(())
}

/// The record of a call has the numbers that the provider sent.
fn same_numbers(record: &Record, call: &Call) -> Result<()> {
    let about = || format!("{record:#?}\n{:?} {:?}", call.sent, call.end);
    if !record.estimated && record.finish != "failed" {
        let usage = call.sent.usage.with_context(about)?;
        ensure!(record.input == i64::try_from(usage.input)?, "{}", about());
        ensure!(record.output == i64::try_from(usage.output)?, "{}", about());
        ensure!(record.cached == i64::try_from(usage.cached)?, "{}", about());
    }
    let whole = matches!(record.finish.as_str(), "stop" | "length");
    ensure!(!(whole && call.sent.usage.is_some() && record.estimated), "an estimate in place of a fact: {}", about());
    match record.finish.as_str() {
        "stop" | "length" => ensure!(call.sent.finished, "{}", about()),
        // On a busy machine a timeout may pass before the whole answer was read.
        "failed" => {
            let in_time = record.error.as_deref() != Some("timeout");
            ensure!(!call.sent.finished || !in_time, "{}", about());
        }
        "stopped" => {}
        other => anyhow::bail!("{other}: {}", about()),
    }
    // A stopped call may end before the refusal was read.
    if matches!(call.sent.status, 400..=499 | 503 | 529) && record.finish == "failed" {
        ensure!((record.input, record.output, record.estimated) == (0, 0, false), "{}", about());
    }
    let expected = record.input * 1500 + record.output * 6000;
    ensure!(record.cost == Some(expected), "{}", about());
    Ok(())
}

/// A call that the provider has not seen was stopped before its request was sent.
fn never_arrived(record: &Record) -> Result<()> {
    ensure!(record.finish == "stopped" && record.first_token_ms.is_none() && record.output == 0, "{record:#?}");
    Ok(())
}

/// No provider was called more often than docs/answers.md allows. One owner of an answer calls each model at most
/// 1 + [`RETRIES`] times, never again after its first text or after an error that retries do not mend, and never comes
/// back to a model. Its last call alone may end the answer. Only a takeover begins from the start, and there are at most
/// `takeovers` per answer: also after a call that ended the answer, if the brain was killed before it stored the end.
fn by_the_rules(records: &BTreeMap<String, Record>, takeovers: usize) -> Result<()> {
    let mut answers: BTreeMap<(&str, i64), Vec<&Record>> = BTreeMap::new();
    // Ids sort by time.
    for record in records.values() {
        answers.entry((&record.session, record.seq)).or_default().push(record);
    }
    for calls in answers.values() {
        let (mut owners, mut begin) = (1, 0);
        for end in 1..=calls.len() {
            if let Err(broken) = one_owner_by_the_rules(&calls[begin..end]) {
                ensure!(owners <= takeovers, "{broken:#}");
                (owners, begin) = (owners + 1, end - 1);
            }
        }
    }
    Ok(())
}

fn one_owner_by_the_rules(calls: &[&Record]) -> Result<()> {
    let mut models: Vec<&str> = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        let before: Vec<_> = calls[..index].iter().filter(|other| other.model == call.model).collect();
        ensure!(before.len() <= RETRIES, "called too often: {calls:#?}");
        let last = before.last();
        ensure!(last.is_none_or(|last| last.first_token_ms.is_none()), "called again after its first text: {calls:#?}");
        let error = last.and_then(|last| last.error.as_deref()).unwrap_or_default();
        ensure!(!FOR_GOOD.contains(&error), "called again after {error}: {calls:#?}");
        if models.last() != Some(&call.model.as_str()) {
            ensure!(!models.contains(&call.model.as_str()), "came back to a model: {calls:#?}");
            models.push(&call.model);
        }
    }
    let earlier = calls.split_last().map(|(_, earlier)| earlier).unwrap_or_default();
    ensure!(earlier.iter().all(|call| call.finish == "failed"), "called again after an end: {calls:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_answers_through_providers_that_fail_at_random() -> Result<()> {
    let seed = seed();
    let answers = number("CHATBOX_SOAK_ANSWERS").unwrap_or(1000);
    let (users, rounds) = (40, answers.div_ceil(40));
    let providers = Providers::start(seed).await?;
    let stack = providers.builder()?.start().await?;
    let mut asking = JoinSet::new();
    for user in 0..users {
        let connection = stack.user(&format!("user-{user}"))?.connect().await?;
        let model = MODELS[usize::try_from(user)? % MODELS.len()].0;
        asking.spawn(ask(connection, model, rounds, seed + user, false));
    }
    while let Some(asked) = asking.join_next().await {
        let (connection, session) = asked??;
        one_answer_each(&connection, &session, rounds)?;
    }
    let records = ledger::settled(&stack).await?;
    let calls = providers.calls()?;
    ensure!(calls.keys().all(|id| records.contains_key(id)), "a call without a record");
    for (id, record) in &records {
        match calls.get(id) {
            Some(call) => same_numbers(record, call)?,
            None => never_arrived(record)?,
        }
    }
    by_the_rules(&records, 0)?;
    let failed = records.values().filter(|record| record.finish == "failed").count();
    say(&format!("{} answers took {} calls, of which {failed} failed", users * rounds, records.len()));
    ensure!(failed > 0 && records.len() as u64 >= answers * 9 / 10, "the providers were not called, or did not fail");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_go_on_and_are_accounted_for_while_brains_are_killed() -> Result<()> {
    let seed = seed();
    let providers = Providers::start(seed).await?;
    let builder = providers.builder()?.store(StoreAt::mongodb().await?).brains(2);
    let mut stack = builder
        .brain("answers.lease_ms", 1000)?
        .brain("answers.checkpoint_ms", 200)?
        // Reservations of calls that are lost with their brain expire a little after this.
        .brain("provider.total_timeout_ms", 5000)?
        .start()
        .await?;
    let (users, rounds) = (16, 12);
    let mut asking = JoinSet::new();
    for user in 0..users {
        let connection = stack.user(&format!("user-{user}"))?.connect().await?;
        let model = MODELS[usize::try_from(user)? % MODELS.len()].0;
        asking.spawn(ask(connection, model, rounds, seed + user, true));
    }
    let (kills, asked) = kill_brains_until_done(&mut stack, asking, seed).await?;
    for (connection, session) in &asked {
        one_answer_each(connection, session, rounds)?;
        at_rest::assert_log_is_stored(&stack, connection, session).await?;
    }
    let records = ledger::settled_within(&stack, SETTLED_WITHIN).await?;
    for (id, call) in providers.calls()? {
        let record = records.get(&id).with_context(|| format!("no record of {id}: {call:?}"))?;
        if record.finish != "lost" {
            same_numbers(record, &call)?;
        }
    }
    by_the_rules(&records, kills.min(MAX_OWNERS - 1))?;
    let lost: Vec<_> = records.values().filter(|record| record.finish == "lost").collect();
    say(&format!("{kills} kills, {} records, {} of them of calls lost with their brain", records.len(), lost.len()));
    ensure!(kills >= 3, "only {kills} brains were killed");
    ensure!(!lost.is_empty(), "no call was lost with its brain");
    ensure!(lost.iter().all(|record| record.estimated), "the usage of a lost call is not marked as estimated");
    Ok(())
}

/// Kills and restarts the brains in turn until all users are done. Returns how many were killed, and what the users have.
async fn kill_brains_until_done(
    stack: &mut Stack,
    mut asking: JoinSet<Result<(Connection, String)>>,
    seed: u64,
) -> Result<(usize, Vec<(Connection, String)>)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut asked = Vec::new();
    for kill in 0.. {
        let pause = tokio::time::sleep(Duration::from_millis(random.random_range(800..2000)));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                done = asking.join_next() => match done {
                    Some(done) => asked.push(done??),
                    None => return Ok((kill, asked)),
                },
            }
        }
        stack.kill_brain_at(kill % 2).await?;
        stack.start_brain_at(kill % 2).await?;
        stack.linked(2).await?;
    }
    Ok((0, asked))
}
