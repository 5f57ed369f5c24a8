//! The limits on the calls for one answer, checked on the records of the ledger.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use chatbox_tests::harness::ledger::Record;

/// Retries of one model.
pub(super) const RETRIES: usize = 2;
/// Errors after which a model is never called again.
const FOR_GOOD: [&str; 7] =
    ["auth", "quota", "rejected", "context_length", "not_found", "content_filtered", "protocol"];

/// No provider was called more often than docs/answers.md allows. One owner of an answer calls each model at most
/// 1 + [`RETRIES`] times, never again after its first text or after an error that retries do not mend, and never comes
/// back to a model. Its last call alone may end the answer. Only a takeover begins from the start, and an answer has at most
/// `max_owners`: also after a call that ended the answer, if its brain was killed before it stored the end.
pub(super) fn by_the_rules(records: &BTreeMap<String, Record>, max_owners: usize) -> Result<()> {
    let mut answers: BTreeMap<(&str, i64), Vec<&Record>> = BTreeMap::new();
    // Ids sort by time.
    for record in records.values() {
        answers.entry((&record.session, record.seq)).or_default().push(record);
    }
    for calls in answers.values() {
        let owners = by_owner(calls);
        ensure!(owners.len() <= max_owners, "{} owners: {calls:#?}", owners.len());
        owners.iter().try_for_each(|owned| one_owner_by_the_rules(owned))?;
    }
    Ok(())
}

/// The calls of each owner of one answer, in order.
fn by_owner<'a>(calls: &[&'a Record]) -> Vec<Vec<&'a Record>> {
    let mut owners: Vec<Vec<&Record>> = Vec::new();
    for call in calls.iter().copied() {
        match owners.last_mut().filter(|owned| !is_takeover(owned, call)) {
            Some(owned) => owned.push(call),
            None => owners.push(vec![call]),
        }
    }
    owners
}

/// Whether the call that follows these calls of one owner belongs to another owner: the last call was lost or handed over
/// with its owner, or a model is called again under a higher attempt. An owner that begins a new attempt does so because
/// another model continues the answer.
fn is_takeover(owned: &[&Record], call: &Record) -> bool {
    let before = owned.iter().rev().find(|other| other.model == call.model);
    owned.last().is_some_and(|last| is_taken_over(last)) || before.is_some_and(|before| call.attempt > before.attempt)
}

/// Whether the call ended with the ownership of its brain and not with the answer.
fn is_taken_over(call: &Record) -> bool {
    matches!(call.finish.as_str(), "lost" | "handed_over")
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

/// The records of one answer, each with its model, its attempt, its end and its error.
fn records(calls: &[(&str, i64, &str, Option<&str>)]) -> BTreeMap<String, Record> {
    let record = |(index, (model, attempt, finish, error)): (usize, &(&str, i64, &str, Option<&str>))| Record {
        id: format!("{index:02}"),
        user: "ana".to_owned(),
        session: "s".to_owned(),
        purpose: "answer".to_owned(),
        seq: 2,
        attempt: *attempt,
        model: (*model).to_owned(),
        provider: "openai".to_owned(),
        input: 0,
        cached: 0,
        output: 0,
        estimated: false,
        finish: (*finish).to_owned(),
        error: error.map(str::to_owned),
        cost: None,
        first_token_ms: None,
        total_ms: 1,
        day: "2026-01-01".to_owned(),
    };
    calls.iter().enumerate().map(record).map(|record| (record.id.clone(), record)).collect()
}

#[test]
fn only_a_takeover_begins_from_the_start() {
    let failed = |model, attempt| (model, attempt, "failed", Some("server"));
    let again = [failed("bird", 1), failed("bird", 1), failed("bird", 1), failed("bird", 1)];
    assert!(by_the_rules(&records(&again[..3]), 5).is_ok());
    assert!(by_the_rules(&records(&again), 5).is_err(), "too many retries of one owner");

    let lost = [failed("bird", 1), ("fish", 2, "lost", None), ("bird", 2, "stop", None)];
    assert!(by_the_rules(&records(&lost), 2).is_ok());
    assert!(by_the_rules(&records(&lost), 1).is_err(), "more owners than brains were killed");

    let between_calls = [failed("bird", 1), failed("fish", 1), ("bird", 2, "stop", None)];
    assert!(by_the_rules(&records(&between_calls), 2).is_ok());

    // The owner was killed after the fallback had failed without text: its attempt was not stored.
    let not_stored = [failed("bird", 1), failed("fish", 2), ("bird", 2, "stop", None)];
    assert!(by_the_rules(&records(&not_stored), 2).is_ok());

    let end_not_stored = [("bird", 1, "stop", None), ("bird", 2, "stop", None)];
    assert!(by_the_rules(&records(&end_not_stored), 2).is_ok());
    assert!(by_the_rules(&records(&end_not_stored), 1).is_err(), "nobody was killed");
    let ended_twice = [("bird", 1, "stop", None), ("bird", 1, "stop", None)];
    assert!(by_the_rules(&records(&ended_twice), 5).is_err(), "one owner called again after an end");

    let back = [failed("bird", 1), failed("fish", 1), ("bird", 1, "stop", None)];
    assert!(by_the_rules(&records(&back), 5).is_err(), "an owner came back to a model");

    let for_good = [("bird", 1, "failed", Some("auth")), ("bird", 1, "stop", None)];
    assert!(by_the_rules(&records(&for_good), 5).is_err(), "called again after a permanent error");
}
