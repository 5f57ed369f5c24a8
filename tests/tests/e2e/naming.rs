//! Names of sessions: at once from the first message, later from a model.

use std::time::Duration;

use anyhow::{Result, ensure};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::{Conversation, Dialect, Stack, at_rest, ledger};
use chatbox_tests::provider::{FakeProvider, Gate, Script, Step};
use serde_json::json;

/// The name from the first message, and the name from the model.
const FIRST: &str = "canary-first where do swifts sleep?";
const THOUGHT_OF: &str = "canary-better swifts asleep";

/// A conversation, and the provider of the model that names sessions.
async fn start() -> Result<(Conversation, FakeProvider)> {
    let (provider, naming) = (FakeProvider::start().await?, FakeProvider::start().await?);
    provider.always(Script::answer(["In ", "the air."]));
    let stack = Stack::builder()
        .model(Model::at("bird", Dialect::OpenAi, &provider.url()))
        .model(Model::at("namer", Dialect::Anthropic, &naming.url()).with("max_retries", 0))
        .brain("answers.naming_model", "namer")?
        .start()
        .await?;
    Ok((Conversation::on(provider, stack).await?, naming))
}

/// Waits until the client is told that the session has this name.
async fn named(chat: &mut Conversation, name: &str) -> Result<()> {
    let what = format!("the name {name:?}");
    chat.ana.seen(&what, |frame| frame.is("session") && frame.text("/session/name") == name).await?;
    Ok(())
}

#[tokio::test]
async fn the_first_message_names_at_once_and_the_model_does_better() -> Result<()> {
    let (mut chat, naming) = start().await?;
    let gate = Gate::new();
    naming.script(
        Script::begun([format!("**\"{THOUGHT_OF}\"**")])
            .then(Step::Hold(gate.clone()))
            .then(Step::Finish { input: 40, output: 5 }),
    );
    chat.ana.converse(&chat.session, FIRST).await?;
    named(&mut chat, FIRST).await?;
    gate.open();
    named(&mut chat, THOUGHT_OF).await?;
    let asked = naming.chat_calls()[0].body.to_string();
    ensure!(asked.contains(FIRST) && asked.contains("In the air."), "{asked}");
    // The session is named once: the second answer causes no further call.
    chat.ana.converse(&chat.session, "and eat?").await?;
    let records = ledger::settled(&chat.stack).await?;
    ensure!(naming.chat_calls().len() == 1, "{} calls", naming.chat_calls().len());
    let records: Vec<_> = records.values().filter(|record| record.purpose == "name").collect();
    ensure!(records.len() == 1 && (records[0].input, records[0].output, records[0].seq) == (40, 5, 0), "{records:?}");
    // Names are encrypted, also in the files beside the database.
    for file in at_rest::sqlite_bytes(&chat.stack.database_file())? {
        ensure!(
            !at_rest::contains(&file, FIRST.as_bytes()) && !at_rest::contains(&file, THOUGHT_OF.as_bytes()),
            "a name in the clear"
        );
    }
    let mut again = chat.stack.user("ana")?.connect().await?;
    let listed = again.ask_ok(json!({ "type": "session_list" })).await?;
    ensure!(listed.at("/sessions/0/name") == THOUGHT_OF, "{}", listed.raw);
    Ok(())
}

#[tokio::test]
async fn a_name_given_by_a_person_is_not_replaced() -> Result<()> {
    let (mut chat, naming) = start().await?;
    let gate = Gate::new();
    naming.script(Script::steps([
        Step::Hold(gate.clone()),
        Step::Begin,
        Step::Delta(THOUGHT_OF.into()),
        Step::Finish { input: 1, output: 1 },
    ]));
    chat.ana.converse(&chat.session, FIRST).await?;
    naming.wait_until(|calls| !calls.is_empty()).await?;
    chat.ana.ask_ok(json!({ "type": "session_rename", "session_id": chat.session, "name": "mine" })).await?;
    gate.open();
    ledger::settled(&chat.stack).await?;
    // A name from the model would come after the record.
    tokio::time::sleep(Duration::from_millis(200)).await;
    chat.ana.settle().await?;
    let last = chat
        .ana
        .frames
        .iter()
        .rev()
        .find(|frame| frame.is("session"))
        .map(|frame| frame.text("/session/name").to_owned());
    ensure!(last.as_deref() == Some("mine"), "{last:?}");
    Ok(())
}

#[tokio::test]
async fn a_model_that_fails_or_says_too_much_leaves_the_first_name() -> Result<()> {
    for script in [
        Script::no_reply(),
        Script::answer([""]),
        Script::answer(["far too much ".repeat(500)]),
        Script::begun(["half a ti"]).then(Step::Cut),
    ] {
        let (mut chat, naming) = start().await?;
        naming.script(script);
        chat.ana.converse(&chat.session, FIRST).await?;
        naming.wait_until(|calls| calls.iter().any(|call| call.end.is_some())).await.ok();
        ledger::settled(&chat.stack).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        chat.ana.settle().await?;
        let opened = chat.ana.open(&chat.session).await?;
        ensure!(opened.at("/session/name") == FIRST, "{}", opened.raw);
    }
    Ok(())
}
