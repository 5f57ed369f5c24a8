//! Changing the configuration of a brain that runs: a good file is in force for what comes next, a bad one changes nothing.

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::process::signal;
use chatbox_tests::harness::waits::eventually;
use chatbox_tests::harness::{Dialect, Stack, brains, ledger};
use chatbox_tests::provider::{Call, Gate, ProviderDouble, Script, Step};
use serde_json::json;

struct Talk {
    double: ProviderDouble,
    stack: Stack,
    ana: Connection,
    session: String,
}

impl Talk {
    async fn start(watch_seconds: i64) -> Result<Self> {
        let double = ProviderDouble::start().await?;
        let stack = Stack::builder()
            .model(Model::at("bird", Dialect::OpenAi, &double.url()).with("system_prompt", "Old words."))
            .brain("reload.watch_seconds", watch_seconds)?
            .start()
            .await?;
        let session = new_session();
        let mut ana = stack.user("ana")?.connect().await?;
        ana.open(&session).await?;
        Ok(Self { double, stack, ana, session })
    }

    /// Changes the file the brain was started with.
    fn edit(&self, change: impl FnOnce(String) -> String) -> Result<()> {
        let file = self.stack.folder().join("brain-0.toml");
        let text = std::fs::read_to_string(&file)?;
        Ok(std::fs::write(&file, change(text))?)
    }

    async fn reloads(&self, outcome: &str, count: u64) -> Result<()> {
        let name = format!("chatbox_brain_config_reloads_total{{outcome=\"{outcome}\"}}");
        eventually(&name, || async {
            let now = brains::metric(self.stack.brain_ops(), &name).await?;
            ensure!(now == count, "{now} reloads were {outcome}");
            Ok(())
        })
        .await
    }

    fn last_call(&self) -> Result<Call> {
        self.double.journal().into_iter().rfind(Call::is_chat).context("no call")
    }
}

#[tokio::test]
async fn a_changed_file_is_in_force_without_a_restart() -> Result<()> {
    let mut talk = Talk::start(1).await?;
    talk.ana.converse(&talk.session, "one").await?;
    ensure!(talk.last_call()?.body.to_string().contains("Old words."), "{}", talk.last_call()?.body);
    let url = talk.double.url();
    talk.edit(|text| {
        let text = text.replace("Old words.", "New words.");
        format!("{text}\n[[models]]\nid = \"fish\"\nname = \"Fish\"\nprovider = \"anthropic\"\nmodel = \"m\"\nbase_url = \"{url}\"\ninput_price = 1.0\noutput_price = 2.0\n")
            .replace("[brain]", "[limits]\nmax_content_chars = 10\n\n[brain]")
    })?;
    talk.reloads("taken", 1).await?;
    // The prompt, the sizes, the models and their prices, for those who are connected …
    talk.ana.converse(&talk.session, "two").await?;
    ensure!(talk.last_call()?.body.to_string().contains("New words."), "{}", talk.last_call()?.body);
    let long = chatbox_tests::harness::connection::user_message(&talk.session, &new_session(), "far too long now");
    talk.ana.ask_refused(long, "too_large").await?;
    talk.ana.ask_ok(json!({ "type": "model_select", "session_id": talk.session, "model_id": "fish" })).await?;
    let answer = talk.ana.converse(&talk.session, "three").await?;
    ensure!(answer["model_id"] == "fish" && answer["state"] == "final", "{answer}");
    let records = ledger::settled(&talk.stack).await?;
    ensure!(records.values().filter(|record| record.cost.is_some()).count() == 1, "{records:?}");
    // … and for those who connect from now on.
    eventually("the new models in welcome", || async {
        let other = talk.stack.user("bob")?.connect().await?;
        let models = other.welcome["models"].to_string();
        ensure!(models.contains("fish") && other.welcome["limits"]["max_content_chars"] == 10, "{}", other.welcome);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_signal_reads_the_file_and_one_with_faults_changes_nothing() -> Result<()> {
    let mut talk = Talk::start(0).await?;
    let pid = talk.stack.brain_process().pid();
    for broken in ["this is no TOML", "[answers]\ndefault_model = \"nobody\"\n", "[no_such_section]\nkey = 1\n"] {
        let file = talk.stack.folder().join("brain-0.toml");
        let good = std::fs::read_to_string(&file)?;
        talk.edit(|text| format!("{}\n{broken}", text.replace("Old words.", "Broken words.")))?;
        let refused =
            brains::metric(talk.stack.brain_ops(), "chatbox_brain_config_reloads_total{outcome=\"refused\"}").await?;
        signal(pid, "HUP").await?;
        talk.reloads("refused", refused + 1).await?;
        let answer = talk.ana.converse(&talk.session, "still there?").await?;
        ensure!(answer["state"] == "final", "{answer}");
        ensure!(talk.last_call()?.body.to_string().contains("Old words."), "{}", talk.last_call()?.body);
        std::fs::write(&file, good)?;
    }
    ensure!(talk.stack.output().contains("has errors"), "the log does not say so");
    talk.edit(|text| text.replace("Old words.", "New words."))?;
    signal(pid, "HUP").await?;
    talk.reloads("taken", 1).await?;
    talk.ana.converse(&talk.session, "and now?").await?;
    ensure!(talk.last_call()?.body.to_string().contains("New words."), "{}", talk.last_call()?.body);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_grows_is_not_disturbed() -> Result<()> {
    let mut talk = Talk::start(1).await?;
    let gate = Gate::new();
    talk.double.script(
        Script::begun(["half "])
            .then(Step::Hold(gate.clone()))
            .then(Step::Delta("whole".into()))
            .then(Step::Finish { input: 1, output: 2 }),
    );
    let seq = talk.ana.say(&talk.session, "go").await?.number("/seq").context("no seq")?;
    talk.ana.shown(&talk.session, seq, "half ").await?;
    talk.edit(|text| text.replace("id = \"bird\"", "id = \"other\""))?;
    talk.reloads("taken", 1).await?;
    gate.open();
    let answer = talk.ana.answer(&talk.session, seq).await?;
    ensure!(answer["content"] == "half whole" && answer["state"] == "final", "{answer}");
    // Its model is gone: the next answer says so.
    let answer = talk.ana.converse(&talk.session, "again").await?;
    ensure!(answer["error"]["code"] == "model_unavailable", "{answer}");
    Ok(())
}
