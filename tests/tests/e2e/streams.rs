//! Answers while they grow: who joins, who stops them, who dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::start::Builder;
use chatbox_tests::harness::waits::within_time;
use chatbox_tests::harness::{Dialect, Stack, raw_http};
use chatbox_tests::provider::{Call, Driver, End, ProviderDouble, Script, Step};
use serde_json::json;
use tokio::time::Instant;

struct Talk {
    double: ProviderDouble,
    stack: Stack,
    ana: Connection,
    session: String,
}

impl Talk {
    async fn start(dialect: Dialect, change: impl FnOnce(Builder) -> Result<Builder>) -> Result<Self> {
        let double = ProviderDouble::start().await?;
        let builder = Stack::builder().model(Model::at("bird", dialect, &double.url()));
        let stack = change(builder)?.start().await?;
        let session = new_session();
        let mut ana = stack.user("ana")?.device("phone").connect().await?;
        ana.open(&session).await?;
        Ok(Self { double, stack, ana, session })
    }

    /// Says something and lets the answer begin with these pieces.
    async fn begin(&mut self, pieces: &[&str]) -> Result<Driver> {
        let (script, driver) = Script::live();
        self.double.script(script);
        driver.step(Step::Begin);
        for piece in pieces {
            driver.delta(*piece);
        }
        let ack = self.ana.say(&self.session, "tell me").await?;
        let seq = ack.number("/seq").context("no seq")?;
        self.ana.shown(&self.session, seq, &pieces.concat()).await?;
        Ok(driver)
    }

    async fn again(&self, device: &str) -> Result<Connection> {
        let mut connection = self.stack.user("ana")?.device(device).connect().await?;
        connection.open(&self.session).await?;
        Ok(connection)
    }
}

fn chats(calls: &[Call]) -> usize {
    calls.iter().filter(|call| call.is_chat()).count()
}

#[tokio::test]
async fn who_joins_in_the_middle_gets_what_there_is_and_then_exactly_the_rest() -> Result<()> {
    let mut talk = Talk::start(Dialect::OpenAi, Ok).await?;
    let driver = talk.begin(&["One ", "two "]).await?;
    // At several places, so also before and after the text was saved.
    let mut devices = Vec::new();
    let mut text = "One two ".to_owned();
    for device in ["laptop", "tablet", "watch"] {
        let mut connection = talk.again(device).await?;
        let entry = connection.seen("the streaming entry", |frame| frame.text("/entry/state") == "streaming").await?;
        ensure!(entry.number("/entry/next_index").is_some(), "{}", entry.raw);
        let shown = connection.log(&talk.session)?.entry(2).map(|seen| seen.content.clone());
        ensure!(shown.as_deref() == Some(text.as_str()), "{device} was shown {shown:?} at session_ready");
        devices.push(connection);
        let more = format!("then {device} ");
        driver.delta(&more);
        text.push_str(&more);
        for connection in devices.iter_mut().chain([&mut talk.ana]) {
            connection.shown(&talk.session, 1, &text).await?;
        }
    }
    driver.delta("and done");
    driver.step(Step::Finish { input: 9, output: 7 });
    let answer = talk.ana.answer(&talk.session, 1).await?;
    ensure!(answer["content"] == format!("{text}and done"), "{answer}");
    for mut connection in devices {
        connection.answer(&talk.session, 1).await?;
        connection.log(&talk.session)?.assert_same(talk.ana.log(&talk.session)?)?;
        connection.log(&talk.session)?.assert_gapless()?;
    }
    Ok(())
}

#[tokio::test]
async fn opening_again_on_the_same_connection_in_the_middle_loses_nothing() -> Result<()> {
    let mut talk = Talk::start(Dialect::OpenAi, Ok).await?;
    let driver = talk.begin(&["One ", "two "]).await?;
    talk.ana.open_with(json!({ "type": "session_open", "session_id": talk.session, "after_seq": 1 })).await?;
    driver.delta("three");
    driver.step(Step::Finish { input: 1, output: 3 });
    let answer = talk.ana.answer(&talk.session, 1).await?;
    ensure!(answer["content"] == "One two three", "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_stopped_answer_keeps_its_text_and_closes_the_provider() -> Result<()> {
    for dialect in Dialect::ALL {
        let mut talk = Talk::start(dialect, Ok).await?;
        let driver = talk.begin(&["One ", "two "]).await?;
        let mut other = talk.again("laptop").await?;
        let asked = Instant::now();
        let reply = other.ask_ok(json!({ "type": "stop_generation", "session_id": talk.session })).await?;
        ensure!(reply.is("ack"), "{}", reply.raw);
        driver.delta("three ");
        let answer = talk.ana.answer(&talk.session, 1).await?;
        ensure!(answer["state"] == "final" && answer["finish_reason"] == "stopped", "{answer}");
        ensure!(answer["content"] == "One two " && answer["usage"]["estimated"] == true, "{answer}");
        // Dify ends its stream by itself once it is told to.
        let end = if dialect == Dialect::Dify { End::Finished } else { End::ClientClosed };
        let closed = talk.double.wait_until(|calls| calls[0].ended() == Some(end)).await?;
        ensure!(asked.elapsed() < Duration::from_secs(2), "{dialect:?}: closed after {:?}", asked.elapsed());
        ensure!(chats(&closed) == 1, "{} calls", chats(&closed));
        if dialect == Dialect::Dify {
            let calls = talk.double.wait_until(|calls| calls.iter().any(|call| call.path.ends_with("/stop"))).await?;
            let stop = calls.iter().find(|call| call.path.ends_with("/stop")).context("no stop call")?;
            ensure!(stop.body["user"].is_string() && stop.body["user"] == calls[0].body["user"], "{}", stop.body);
        }
        // The log has ended it: nothing more comes. The reply tells it to the one who asked as well.
        let after = other.frames.iter().position(|frame| frame.is("ack")).unwrap_or_default();
        other.settle().await?;
        ensure!(!other.frames[after..].iter().any(|frame| frame.is("ai_delta")), "a delta after the stop");
        // Nothing to stop is no error.
        talk.ana.ask_ok(json!({ "type": "stop_generation", "session_id": talk.session })).await?;
        talk.double.script(Script::answer(["go on"]));
        ensure!(talk.ana.converse(&talk.session, "more").await?["content"] == "go on", "no next answer");
    }
    Ok(())
}

#[tokio::test]
async fn messages_sent_while_an_answer_grows_are_answered_one_after_the_other() -> Result<()> {
    let mut talk = Talk::start(Dialect::OpenAi, Ok).await?;
    let driver = talk.begin(&["One "]).await?;
    for text in ["second", "third"] {
        talk.double.script(Script::answer([format!("answer to {text}")]));
        talk.ana.say(&talk.session, text).await?;
    }
    ensure!(chats(&talk.double.journal()) == 1, "two answers at once");
    driver.step(Step::Finish { input: 1, output: 1 });
    drop(driver);
    let mut answers = Vec::new();
    for seq in [1, 3, 4] {
        answers.push(talk.ana.answer(&talk.session, seq).await?["content"].clone());
    }
    ensure!(answers == ["One ", "answer to second", "answer to third"], "{answers:?}");
    talk.ana.log(&talk.session)?.assert_gapless()
}

#[tokio::test]
async fn a_brain_that_dies_in_the_middle_leaves_an_answer_that_is_given_anew() -> Result<()> {
    let mut talk = Talk::start(Dialect::OpenAi, |it| it.brain("answers.lease_ms", 2000)).await?;
    let _driver = talk.begin(&["lost ", "words "]).await?;
    talk.stack.kill_brain().await?;
    talk.double.script(Script::answer(["a new ", "answer"]));
    talk.stack.start_brain().await?;
    let began = Instant::now();
    let answer = talk.ana.answer(&talk.session, 1).await?;
    ensure!(began.elapsed() < Duration::from_secs(6), "the new attempt took {:?}", began.elapsed());
    ensure!(answer["state"] == "final" && answer["content"] == "a new answer", "{answer}");
    ensure!(answer["attempt"] == 2 && answer["seq"] == 2, "{answer}");
    ensure!(chats(&talk.double.journal()) == 2, "{} calls", chats(&talk.double.journal()));
    talk.ana.log(&talk.session)?.assert_gapless()?;
    let mut fresh = talk.again("laptop").await?;
    fresh.settle().await?;
    fresh.log(&talk.session)?.assert_same(talk.ana.log(&talk.session)?)?;
    ensure!(!talk.ana.frames.iter().any(|frame| frame.is("notice")), "the client was told");
    Ok(())
}

#[tokio::test]
async fn a_brain_that_is_asked_to_end_hands_its_answer_over() -> Result<()> {
    let mut talk =
        Talk::start(Dialect::OpenAi, |it| it.brain("answers.lease_ms", 60_000)?.brain("shutdown.drain_seconds", 1))
            .await?;
    let _driver = talk.begin(&["half "]).await?;
    talk.stack.term_brain().await?;
    talk.double.script(Script::answer(["whole"]));
    talk.stack.start_brain().await?;
    // The lease was given up, not waited for.
    let answer = within_time(Duration::from_secs(8), "the new attempt", talk.ana.answer(&talk.session, 1)).await??;
    ensure!(answer["content"] == "whole" && answer["attempt"] == 2, "{answer}");
    Ok(())
}

#[tokio::test]
async fn an_answer_belongs_to_the_brain_and_not_to_a_socket() -> Result<()> {
    let mut talk = Talk::start(Dialect::OpenAi, |it| Ok(it.gateways(2))).await?;
    let driver = talk.begin(&["One "]).await?;
    talk.stack.kill_gateway(0).await?;
    driver.delta("two");
    driver.step(Step::Finish { input: 1, output: 2 });
    drop(driver);
    talk.double.wait_until(|calls| calls[0].ended() == Some(End::Finished)).await?;
    let mut back = talk.stack.user_at("ana", 1)?.connect().await?;
    back.open(&talk.session).await?;
    let answer = back.answer(&talk.session, 1).await?;
    ensure!(answer["content"] == "One two" && answer["attempt"] == 1, "{answer}");
    ensure!(chats(&talk.double.journal()) == 1, "{} calls", chats(&talk.double.journal()));
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_slows_nobody() -> Result<()> {
    let mut talk = Talk::start(Dialect::OpenAi, Ok).await?;
    let (mut stuck, _) = talk.stack.user("ana")?.device("stuck").receive_buffer(4096).buffer(1024).upgrade().await?;
    let open = json!({ "type": "session_open", "session_id": talk.session, "id": "open" });
    futures_util::SinkExt::send(&mut stuck, tungstenite::Message::text(open.to_string())).await?;
    let mut reader = talk.again("laptop").await?;
    // Answers of 100 kB, as deltas and once more as a whole, until all buffers on the way are full.
    let piece = "x".repeat(10_000);
    talk.double.always(Script::answer(vec![piece; 10]).paced(Duration::from_millis(1)));
    let mut full = false;
    for _ in 0..60 {
        let ack = talk.ana.say(&talk.session, "a lot, please").await?;
        let seq = ack.number("/seq").context("no seq")?;
        for connection in [&mut talk.ana, &mut reader] {
            let answer = connection.answer(&talk.session, seq).await?;
            ensure!(answer["content"].as_str().map(str::len) == Some(100_000), "the text is not whole");
        }
        let metrics = raw_http::get(talk.stack.gateway_ops(0), "/metrics").await?.text();
        full =
            metrics.lines().any(|line| line.starts_with("chatbox_gateway_slow_closes_total") && line.ends_with(" 1"));
        if full {
            break;
        }
    }
    ensure!(full, "a client that does not read is not closed");
    // Now it reads: what was sent, then the close.
    let close = within_time(Duration::from_secs(20), "the close", async {
        while let Some(Ok(message)) = futures_util::StreamExt::next(&mut stuck).await {
            if let tungstenite::Message::Close(frame) = message {
                return frame.map(|frame| u16::from(frame.code));
            }
        }
        None
    })
    .await?;
    ensure!(close == Some(4008), "{close:?}");
    Ok(())
}
