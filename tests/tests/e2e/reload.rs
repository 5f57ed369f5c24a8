//! Reloading the configuration of a running brain: a valid file applies to later requests, an invalid one changes nothing.

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::connection::{new_session, user_message};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::process::{Signal, signal};
use chatbox_tests::harness::waits::eventually;
use chatbox_tests::harness::{Conversation, Dialect, Stack, brains, ledger};
use chatbox_tests::provider::{Call, FakeProvider, Gate, Script, Step};
use serde_json::json;

/// A conversation whose brain looks for a changed file every `watch_seconds`; 0 is never.
async fn start(watch_seconds: i64) -> Result<Conversation> {
    let provider = FakeProvider::start().await?;
    let stack = Stack::builder()
        .model(Model::at("bird", Dialect::OpenAi, &provider.url()).with("system_prompt", "Old words."))
        .brain("reload.watch_seconds", watch_seconds)?
        .start()
        .await?;
    Conversation::on(provider, stack).await
}

/// Changes the file the brain was started with.
fn edit(chat: &Conversation, change: impl FnOnce(String) -> String) -> Result<()> {
    let file = chat.stack.folder().join("brain-0.toml");
    let text = std::fs::read_to_string(&file)?;
    Ok(std::fs::write(&file, change(text))?)
}

/// Waits until the brain has counted this many reloads with this outcome.
async fn reloads(chat: &Conversation, outcome: &str, count: u64) -> Result<()> {
    let name = format!("chatbox_brain_config_reloads_total{{outcome=\"{outcome}\"}}");
    eventually(&name, || async {
        let now = brains::metric(chat.stack.brain_ops(), &name).await?;
        ensure!(now == count, "{now} reloads were {outcome}");
        Ok(())
    })
    .await
}

fn last_call(chat: &Conversation) -> Result<Call> {
    chat.calls().pop().context("no call")
}

#[tokio::test]
async fn a_changed_file_is_in_force_without_a_restart() -> Result<()> {
    let mut chat = start(1).await?;
    chat.ana.converse(&chat.session, "one").await?;
    ensure!(last_call(&chat)?.body.to_string().contains("Old words."), "{}", last_call(&chat)?.body);
    let url = chat.provider.url();
    edit(&chat, |text| {
        let text = text.replace("Old words.", "New words.");
        format!("{text}\n[[models]]\nid = \"fish\"\nname = \"Fish\"\nprovider = \"anthropic\"\nmodel = \"m\"\nbase_url = \"{url}\"\ninput_price = 1.0\noutput_price = 2.0\n")
            .replace("[brain]", "[limits]\nmax_content_chars = 10\n\n[brain]")
    })?;
    reloads(&chat, "taken", 1).await?;
    // Prompt, limits, models and prices change for connected users …
    chat.ana.converse(&chat.session, "two").await?;
    ensure!(last_call(&chat)?.body.to_string().contains("New words."), "{}", last_call(&chat)?.body);
    let long = user_message(&chat.session, &new_session(), "far too long now");
    chat.ana.ask_refused(long, "too_large").await?;
    chat.ana.ask_ok(json!({ "type": "model_select", "session_id": chat.session, "model_id": "fish" })).await?;
    let answer = chat.ana.converse(&chat.session, "three").await?;
    ensure!(answer["model_id"] == "fish" && answer["state"] == "final", "{answer}");
    let records = ledger::settled(&chat.stack).await?;
    ensure!(records.values().filter(|record| record.cost.is_some()).count() == 1, "{records:?}");
    // … and for users who connect from now on.
    eventually("the new models in welcome", || async {
        let other = chat.stack.user("bob")?.connect().await?;
        let models = other.welcome["models"].to_string();
        ensure!(models.contains("fish") && other.welcome["limits"]["max_content_chars"] == 10, "{}", other.welcome);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_signal_reads_the_file_and_one_with_faults_changes_nothing() -> Result<()> {
    let mut chat = start(0).await?;
    let pid = chat.stack.brain_process().pid();
    for broken in ["this is no TOML", "[answers]\ndefault_model = \"nobody\"\n", "[no_such_section]\nkey = 1\n"] {
        let file = chat.stack.folder().join("brain-0.toml");
        let good = std::fs::read_to_string(&file)?;
        edit(&chat, |text| format!("{}\n{broken}", text.replace("Old words.", "Broken words.")))?;
        let refused =
            brains::metric(chat.stack.brain_ops(), "chatbox_brain_config_reloads_total{outcome=\"refused\"}").await?;
        signal(pid, Signal::HUP)?;
        reloads(&chat, "refused", refused + 1).await?;
        let answer = chat.ana.converse(&chat.session, "still there?").await?;
        ensure!(answer["state"] == "final", "{answer}");
        ensure!(last_call(&chat)?.body.to_string().contains("Old words."), "{}", last_call(&chat)?.body);
        std::fs::write(&file, good)?;
    }
    ensure!(chat.stack.output().contains("has errors"), "the log does not say so");
    edit(&chat, |text| text.replace("Old words.", "New words."))?;
    signal(pid, Signal::HUP)?;
    reloads(&chat, "taken", 1).await?;
    chat.ana.converse(&chat.session, "and now?").await?;
    ensure!(last_call(&chat)?.body.to_string().contains("New words."), "{}", last_call(&chat)?.body);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_grows_is_not_disturbed() -> Result<()> {
    let mut chat = start(1).await?;
    let gate = Gate::new();
    chat.provider.script(
        Script::begun(["half "])
            .then(Step::Hold(gate.clone()))
            .then(Step::Delta("whole".into()))
            .then(Step::Finish { input: 1, output: 2 }),
    );
    let seq = chat.ana.say(&chat.session, "go").await?.number("/seq").context("no seq")?;
    chat.ana.shown(&chat.session, seq, "half ").await?;
    edit(&chat, |text| text.replace("id = \"bird\"", "id = \"other\""))?;
    reloads(&chat, "taken", 1).await?;
    gate.open();
    let answer = chat.ana.answer(&chat.session, seq).await?;
    ensure!(answer["content"] == "half whole" && answer["state"] == "final", "{answer}");
    // The model of the session is gone: the next answer fails with that error.
    let answer = chat.ana.converse(&chat.session, "again").await?;
    ensure!(answer["error"]["code"] == "model_unavailable", "{answer}");
    Ok(())
}
