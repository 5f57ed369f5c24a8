//! The last message answered again: a new entry beside the old one, from the same conversation without it.

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::{Dialect, Stack};
use chatbox_tests::provider::{Call, ProviderDouble, Script, Step};
use serde_json::{Value, json};

struct Talk {
    double: ProviderDouble,
    _stack: Stack,
    ana: Connection,
    session: String,
}

impl Talk {
    async fn start() -> Result<Self> {
        let double = ProviderDouble::start().await?;
        let url = double.url();
        let other = Model::at("other", Dialect::OpenAi, &url).with("model", "wire-name-2");
        let stack = Stack::builder().model(Model::at("bird", Dialect::OpenAi, &url)).model(other).start().await?;
        let session = new_session();
        let mut ana = stack.user("ana")?.connect().await?;
        ana.open(&session).await?;
        Ok(Self { double, _stack: stack, ana, session })
    }

    fn again(&self) -> Value {
        json!({ "type": "regenerate", "session_id": self.session })
    }

    /// The answer at `seq`, once it has ended.
    async fn ended(&mut self, seq: u64) -> Result<Value> {
        let ended = |log: &chatbox_tests::harness::SessionLog| {
            log.entry(seq).filter(|seen| !seen.streaming()).map(|seen| seen.entry.clone())
        };
        self.ana.log_until(&self.session, &format!("the end of {seq}"), ended).await
    }

    fn calls(&self) -> Vec<Call> {
        self.double.journal().into_iter().filter(Call::is_chat).collect()
    }
}

#[tokio::test]
async fn a_new_answer_stands_beside_the_old_one_and_takes_its_place_in_what_follows() -> Result<()> {
    let mut talk = Talk::start().await?;
    for (question, answer) in [("who?", "the first answer"), ("what?", "the second answer")] {
        talk.double.script(Script::answer([answer]));
        talk.ana.converse(&talk.session, question).await?;
    }
    let old = talk.ana.log(&talk.session)?.entry(4).map(|seen| seen.entry.clone()).context("no answer")?;
    talk.double.script(Script::answer(["a better answer"]));
    talk.ana.ask_ok(talk.again()).await?;
    let new = talk.ended(5).await?;
    ensure!(new["regenerates"] == 4 && new["reply_to_seq"] == 3 && new["content"] == "a better answer", "{new}");
    ensure!(new["id"] != old["id"] && new["model_id"] == "bird", "{new}");
    let kept = talk.ana.log(&talk.session)?.entry(4).map(|seen| seen.entry.clone());
    ensure!(kept.as_ref() == Some(&old), "the old answer changed: {kept:?}");

    let calls = talk.calls();
    ensure!(calls.len() == 3, "{} calls", calls.len());
    ensure!(calls[2].body["messages"] == calls[1].body["messages"], "another prompt: {}", calls[2].body);

    // The one that counts from now on is the last.
    talk.double.script(Script::answer(["the third answer"]));
    talk.ana.converse(&talk.session, "go on").await?;
    let heard = talk.calls()[3].body["messages"].to_string();
    ensure!(heard.contains("a better answer") && !heard.contains("the second answer"), "{heard}");
    talk.ana.log(&talk.session)?.assert_gapless()
}

#[tokio::test]
async fn the_model_can_be_chosen_for_one_answer() -> Result<()> {
    let mut talk = Talk::start().await?;
    talk.ana.converse(&talk.session, "a question").await?;
    let mut request = talk.again();
    request["model_id"] = json!("other");
    talk.ana.ask_ok(request.clone()).await?;
    let answer = talk.ended(3).await?;
    ensure!(answer["model_id"] == "other" && answer["regenerates"] == 2, "{answer}");
    ensure!(talk.calls()[1].body["model"] == "wire-name-2", "{}", talk.calls()[1].body);

    request["model_id"] = json!("no such model");
    talk.ana.ask_refused(request, "model_unavailable").await?;
    let answer = talk.ana.converse(&talk.session, "another question").await?;
    ensure!(answer["model_id"] == "bird" && answer["seq"] == 5, "the choice was for one answer: {answer}");
    Ok(())
}

#[tokio::test]
async fn there_must_be_something_to_answer_and_nothing_under_way() -> Result<()> {
    let mut talk = Talk::start().await?;
    let refused = talk.ana.ask(talk.again()).await?;
    ensure!(refused.is("error") && refused.at("/retryable") == false, "an empty session: {}", refused.raw);
    let (script, driver) = Script::live();
    talk.double.script(script);
    driver.step(Step::Begin);
    driver.delta("growing");
    talk.ana.say(&talk.session, "a question").await?;
    talk.ana.shown(&talk.session, 1, "growing").await?;
    talk.ana.ask_refused(talk.again(), "conflict").await?;
    driver.step(Step::Finish { input: 1, output: 1 });
    let answer = talk.ana.answer(&talk.session, 1).await?;
    ensure!(answer["content"] == "growing" && answer["state"] == "final", "{answer}");
    talk.ana.settle().await?;
    ensure!(talk.calls().len() == 1 && talk.ana.log(&talk.session)?.last_seq() == 2, "something was begun");
    Ok(())
}
