//! Regenerating an answer: a new entry beside the old one, generated from the conversation without the old one.

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::brains::metric;
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::waits::eventually;
use chatbox_tests::harness::{Conversation, Dialect, SessionLog};
use chatbox_tests::provider::{Script, Step};
use serde_json::{Value, json};

/// A conversation with two models at one provider.
async fn start() -> Result<Conversation> {
    Conversation::with_stack(Dialect::OpenAi, |stack, url| {
        Ok(stack.model(Model::at("other", Dialect::OpenAi, url).with("model", "wire-name-2")))
    })
    .await
}

fn regenerate(chat: &Conversation) -> Value {
    json!({ "type": "regenerate", "session_id": chat.session })
}

/// Waits until a new answer may begin. The promise is that it may once the client has the final entry of the one before.
/// Today the brain refuses it for a moment longer.
async fn idle(chat: &Conversation) -> Result<()> {
    eventually("no running answer", || async {
        let running = metric(chat.stack.brain_ops(), "chatbox_brain_answers_running").await?;
        ensure!(running == 0, "{running} answers run");
        Ok(())
    })
    .await
}

/// Waits for the end of the answer at `seq`.
async fn ended(chat: &mut Conversation, seq: u64) -> Result<Value> {
    let ended = |log: &SessionLog| log.entry(seq).filter(|seen| !seen.streaming()).map(|seen| seen.entry.clone());
    chat.ana.log_until(&chat.session, &format!("the end of {seq}"), ended).await
}

#[tokio::test]
async fn a_new_answer_stands_beside_the_old_one_and_replaces_it_in_later_prompts() -> Result<()> {
    let mut chat = start().await?;
    for (question, answer) in [("who?", "the first answer"), ("what?", "the second answer")] {
        chat.provider.script(Script::answer([answer]));
        chat.ana.converse(&chat.session, question).await?;
    }
    let old = chat.ana.log(&chat.session)?.entry(4).map(|seen| seen.entry.clone()).context("no answer")?;
    chat.provider.script(Script::answer(["a better answer"]));
    idle(&chat).await?;
    chat.ana.ask_ok(regenerate(&chat)).await?;
    let new = ended(&mut chat, 5).await?;
    ensure!(new["regenerates"] == 4 && new["reply_to_seq"] == 3 && new["content"] == "a better answer", "{new}");
    ensure!(new["id"] != old["id"] && new["model_id"] == "bird", "{new}");
    let kept = chat.ana.log(&chat.session)?.entry(4).map(|seen| seen.entry.clone());
    ensure!(kept.as_ref() == Some(&old), "the old answer changed: {kept:?}");

    let calls = chat.calls();
    ensure!(calls.len() == 3, "{} calls", calls.len());
    ensure!(calls[2].body["messages"] == calls[1].body["messages"], "another prompt: {}", calls[2].body);

    // Later prompts contain the last answer only.
    chat.provider.script(Script::answer(["the third answer"]));
    chat.ana.converse(&chat.session, "go on").await?;
    let heard = chat.calls()[3].body["messages"].to_string();
    ensure!(heard.contains("a better answer") && !heard.contains("the second answer"), "{heard}");
    chat.ana.log(&chat.session)?.assert_gapless()
}

#[tokio::test]
async fn the_model_can_be_chosen_for_one_answer() -> Result<()> {
    let mut chat = start().await?;
    chat.ana.converse(&chat.session, "a question").await?;
    let mut request = regenerate(&chat);
    request["model_id"] = json!("other");
    idle(&chat).await?;
    chat.ana.ask_ok(request.clone()).await?;
    let answer = ended(&mut chat, 3).await?;
    ensure!(answer["model_id"] == "other" && answer["regenerates"] == 2, "{answer}");
    ensure!(chat.calls()[1].body["model"] == "wire-name-2", "{}", chat.calls()[1].body);

    request["model_id"] = json!("no such model");
    idle(&chat).await?;
    chat.ana.ask_refused(request, "model_unavailable").await?;
    let answer = chat.ana.converse(&chat.session, "another question").await?;
    ensure!(answer["model_id"] == "bird" && answer["seq"] == 5, "the choice was for one answer: {answer}");
    Ok(())
}

#[tokio::test]
async fn there_must_be_something_to_answer_and_nothing_under_way() -> Result<()> {
    let mut chat = start().await?;
    let refused = chat.ana.ask(regenerate(&chat)).await?;
    ensure!(refused.is("error") && refused.at("/retryable") == false, "an empty session: {}", refused.raw);
    let (script, driver) = Script::live();
    chat.provider.script(script);
    driver.step(Step::Begin);
    driver.delta("growing");
    chat.ana.say(&chat.session, "a question").await?;
    chat.ana.shown(&chat.session, 1, "growing").await?;
    chat.ana.ask_refused(regenerate(&chat), "conflict").await?;
    driver.step(Step::Finish { input: 1, output: 1 });
    let answer = chat.ana.answer(&chat.session, 1).await?;
    ensure!(answer["content"] == "growing" && answer["state"] == "final", "{answer}");
    chat.ana.settle().await?;
    ensure!(chat.calls().len() == 1 && chat.ana.log(&chat.session)?.last_seq() == 2, "something was begun");
    Ok(())
}
