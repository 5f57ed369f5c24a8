//! Names of sessions: from the first message at once, and a better one once a model has thought of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::{Dialect, Stack, at_rest, ledger};
use chatbox_tests::provider::{Call, Gate, ProviderDouble, Script, Step};
use serde_json::json;

/// What the first message makes, and what the model does.
const FIRST: &str = "canary-first where do swifts sleep?";
const THOUGHT_OF: &str = "canary-better swifts asleep";

struct Talk {
    _chat: ProviderDouble,
    naming: ProviderDouble,
    stack: Stack,
    ana: Connection,
    session: String,
}

async fn start() -> Result<Talk> {
    let (chat, naming) = (ProviderDouble::start().await?, ProviderDouble::start().await?);
    chat.always(Script::answer(["In ", "the air."]));
    let stack = Stack::builder()
        .model(Model::at("bird", Dialect::OpenAi, &chat.url()))
        .model(Model::at("namer", Dialect::Anthropic, &naming.url()).with("max_retries", 0))
        .brain("answers.naming_model", "namer")?
        .start()
        .await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    Ok(Talk { _chat: chat, naming, stack, ana, session })
}

impl Talk {
    async fn named(&mut self, name: &str) -> Result<()> {
        let what = format!("the name {name:?}");
        self.ana.seen(&what, |frame| frame.is("session") && frame.text("/session/name") == name).await?;
        Ok(())
    }

    fn calls(&self) -> Vec<Call> {
        self.naming.journal().into_iter().filter(Call::is_chat).collect()
    }
}

#[tokio::test]
async fn the_first_message_names_at_once_and_the_model_does_better() -> Result<()> {
    let mut talk = start().await?;
    let gate = Gate::new();
    talk.naming.script(
        Script::begun([format!("**\"{THOUGHT_OF}\"**")])
            .then(Step::Hold(gate.clone()))
            .then(Step::Finish { input: 40, output: 5 }),
    );
    talk.ana.converse(&talk.session, FIRST).await?;
    talk.named(FIRST).await?;
    gate.open();
    talk.named(THOUGHT_OF).await?;
    let asked = talk.calls()[0].body.to_string();
    ensure!(asked.contains(FIRST) && asked.contains("In the air."), "{asked}");
    // Once: the second answer does not name it again.
    talk.ana.converse(&talk.session, "and eat?").await?;
    let records = ledger::settled(&talk.stack).await?;
    ensure!(talk.calls().len() == 1, "{} calls", talk.calls().len());
    let naming: Vec<_> = records.values().filter(|record| record.purpose == "name").collect();
    ensure!(naming.len() == 1 && (naming[0].input, naming[0].output, naming[0].seq) == (40, 5, 0), "{naming:?}");
    // Encrypted like the messages, also in what lies beside the database.
    for file in at_rest::sqlite_bytes(&talk.stack.database_file())? {
        ensure!(!at_rest::contains(&file, FIRST) && !at_rest::contains(&file, THOUGHT_OF), "a name in the clear");
    }
    let mut again = talk.stack.user("ana")?.connect().await?;
    let listed = again.ask_ok(json!({ "type": "session_list" })).await?;
    ensure!(listed.at("/sessions/0/name") == THOUGHT_OF, "{}", listed.raw);
    Ok(())
}

#[tokio::test]
async fn what_a_human_has_named_stays() -> Result<()> {
    let mut talk = start().await?;
    let gate = Gate::new();
    talk.naming.script(Script::steps([
        Step::Hold(gate.clone()),
        Step::Begin,
        Step::Delta(THOUGHT_OF.into()),
        Step::Finish { input: 1, output: 1 },
    ]));
    talk.ana.converse(&talk.session, FIRST).await?;
    talk.naming.wait_until(|calls| !calls.is_empty()).await?;
    talk.ana.ask_ok(json!({ "type": "session_rename", "session_id": talk.session, "name": "mine" })).await?;
    gate.open();
    ledger::settled(&talk.stack).await?;
    // The name comes after the record, if it comes.
    tokio::time::sleep(Duration::from_millis(200)).await;
    talk.ana.settle().await?;
    let last = talk
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
        let mut talk = start().await?;
        talk.naming.script(script);
        talk.ana.converse(&talk.session, FIRST).await?;
        talk.naming.wait_until(|calls| calls.iter().any(|call| call.end.is_some())).await.ok();
        ledger::settled(&talk.stack).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        talk.ana.settle().await?;
        let opened = talk.ana.open(&talk.session).await?;
        ensure!(opened.at("/session/name") == FIRST, "{}", opened.raw);
    }
    Ok(())
}
