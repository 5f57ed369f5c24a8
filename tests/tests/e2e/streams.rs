//! Streaming answers: joining in the middle, stopping, and the end of brains, gateways and slow clients meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::waits::{with_noise, within_time};
use chatbox_tests::harness::{Conversation, Dialect, raw_http};
use chatbox_tests::provider::{Call, End, Script, Step};
use serde_json::json;
use tokio::time::Instant;

fn chats(calls: &[Call]) -> usize {
    calls.iter().filter(|call| call.is_chat()).count()
}

#[tokio::test]
async fn a_late_subscriber_gets_the_text_so_far_and_then_every_further_delta() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    let (_, driver) = chat.start_answer(&["One ", "two "]).await?;
    // At several points, before and after the text was saved.
    let mut devices = Vec::new();
    let mut text = "One two ".to_owned();
    for device in ["laptop", "tablet", "watch"] {
        let mut connection = chat.connect(device).await?;
        let entry = connection.seen("the streaming entry", |frame| frame.text("/entry/state") == "streaming").await?;
        ensure!(entry.number("/entry/next_index").is_some(), "{}", entry.raw);
        let shown = connection.log(&chat.session)?.entry(2).map(|seen| seen.content.clone());
        ensure!(shown.as_deref() == Some(text.as_str()), "{device} was shown {shown:?} at session_ready");
        devices.push(connection);
        let more = format!("then {device} ");
        driver.delta(&more);
        text.push_str(&more);
        for connection in devices.iter_mut().chain([&mut chat.ana]) {
            connection.shown(&chat.session, 1, &text).await?;
        }
    }
    driver.delta("and done");
    driver.step(Step::Finish { input: 9, output: 7 });
    let answer = chat.ana.answer(&chat.session, 1).await?;
    ensure!(answer["content"] == format!("{text}and done"), "{answer}");
    for mut connection in devices {
        connection.answer(&chat.session, 1).await?;
        connection.log(&chat.session)?.assert_same(chat.ana.log(&chat.session)?)?;
        connection.log(&chat.session)?.assert_gapless()?;
    }
    Ok(())
}

#[tokio::test]
async fn opening_again_on_the_same_connection_in_the_middle_loses_nothing() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    let (_, driver) = chat.start_answer(&["One ", "two "]).await?;
    chat.ana.open_with(json!({ "type": "session_open", "session_id": chat.session, "after_seq": 1 })).await?;
    driver.delta("three");
    driver.step(Step::Finish { input: 1, output: 3 });
    let answer = chat.ana.answer(&chat.session, 1).await?;
    ensure!(answer["content"] == "One two three", "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_stopped_answer_keeps_its_text_and_closes_the_provider() -> Result<()> {
    for dialect in Dialect::ALL {
        let mut chat = Conversation::start(dialect).await?;
        let (_, driver) = chat.start_answer(&["One ", "two "]).await?;
        let mut other = chat.connect("laptop").await?;
        let asked = Instant::now();
        let reply = other.ask_ok(json!({ "type": "stop_generation", "session_id": chat.session })).await?;
        ensure!(reply.is("ack"), "{}", reply.raw);
        driver.delta("three ");
        let answer = chat.ana.answer(&chat.session, 1).await?;
        ensure!(answer["state"] == "final" && answer["finish_reason"] == "stopped", "{answer}");
        ensure!(answer["content"] == "One two " && answer["usage"]["estimated"] == true, "{answer}");
        // Dify ends its stream after a stop call.
        let end = if dialect == Dialect::Dify { End::Finished } else { End::ClientClosed };
        let closed = chat.provider.wait_until(|calls| calls[0].ended() == Some(end)).await?;
        // The promise: 1 s.
        ensure!(
            asked.elapsed() <= with_noise(Duration::from_secs(1)),
            "{dialect:?}: closed after {:?}",
            asked.elapsed()
        );
        ensure!(chats(&closed) == 1, "{} calls", chats(&closed));
        if dialect == Dialect::Dify {
            let calls = chat.provider.wait_until(|calls| calls.iter().any(|call| call.path.ends_with("/stop"))).await?;
            let stop = calls.iter().find(|call| call.path.ends_with("/stop")).context("no stop call")?;
            ensure!(stop.body["user"].is_string() && stop.body["user"] == calls[0].body["user"], "{}", stop.body);
        }
        // The answer has ended in the log before the reply, so no delta follows the reply.
        let after = other.frames.iter().position(|frame| frame.is("ack")).unwrap_or_default();
        other.settle().await?;
        ensure!(!other.frames[after..].iter().any(|frame| frame.is("ai_delta")), "a delta after the stop");
        // Without a running answer a stop is no error.
        chat.ana.ask_ok(json!({ "type": "stop_generation", "session_id": chat.session })).await?;
        chat.provider.script(Script::answer(["go on"]));
        ensure!(chat.ana.converse(&chat.session, "more").await?["content"] == "go on", "no next answer");
    }
    Ok(())
}

#[tokio::test]
async fn messages_sent_while_an_answer_grows_are_answered_one_after_the_other() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    let (_, driver) = chat.start_answer(&["One "]).await?;
    for text in ["second", "third"] {
        chat.provider.script(Script::answer([format!("answer to {text}")]));
        chat.ana.say(&chat.session, text).await?;
    }
    ensure!(chats(&chat.provider.journal()) == 1, "two answers at once");
    driver.step(Step::Finish { input: 1, output: 1 });
    drop(driver);
    let mut answers = Vec::new();
    for seq in [1, 3, 4] {
        answers.push(chat.ana.answer(&chat.session, seq).await?["content"].clone());
    }
    ensure!(answers == ["One ", "answer to second", "answer to third"], "{answers:?}");
    chat.ana.log(&chat.session)?.assert_gapless()
}

#[tokio::test]
async fn a_brain_that_dies_in_the_middle_leaves_an_answer_that_is_given_anew() -> Result<()> {
    let mut chat = Conversation::with_stack(Dialect::OpenAi, |it, _| it.brain("answers.lease_ms", 2000)).await?;
    let (_, _driver) = chat.start_answer(&["lost ", "words "]).await?;
    chat.provider.script(Script::answer(["a new ", "answer"]));
    let killed = Instant::now();
    chat.stack.kill_brain().await?;
    chat.stack.start_brain().await?;
    chat.ana.shown(&chat.session, 1, "a new ").await?;
    // The promise: the lease and 2 s.
    ensure!(killed.elapsed() <= with_noise(Duration::from_secs(4)), "the new attempt took {:?}", killed.elapsed());
    let answer = chat.ana.answer(&chat.session, 1).await?;
    ensure!(answer["state"] == "final" && answer["content"] == "a new answer", "{answer}");
    ensure!(answer["attempt"] == 2 && answer["seq"] == 2, "{answer}");
    ensure!(chats(&chat.provider.journal()) == 2, "{} calls", chats(&chat.provider.journal()));
    chat.ana.log(&chat.session)?.assert_gapless()?;
    let mut fresh = chat.connect("laptop").await?;
    fresh.settle().await?;
    fresh.log(&chat.session)?.assert_same(chat.ana.log(&chat.session)?)?;
    ensure!(!chat.ana.frames.iter().any(|frame| frame.is("notice")), "the client was told");
    Ok(())
}

#[tokio::test]
async fn a_brain_that_is_asked_to_end_hands_its_answer_over() -> Result<()> {
    let mut chat = Conversation::with_stack(Dialect::OpenAi, |it, _| {
        it.brain("answers.lease_ms", 60_000)?.brain("shutdown.drain_seconds", 1)
    })
    .await?;
    let (_, _driver) = chat.start_answer(&["half "]).await?;
    chat.stack.term_brain().await?;
    chat.provider.script(Script::answer(["whole"]));
    chat.stack.start_brain().await?;
    // The lease was released, not waited for. The promise is 1 s; today the brain looks for released leases once a second.
    let limit = with_noise(Duration::from_secs(2));
    let answer = within_time(limit, "the new attempt", chat.ana.answer(&chat.session, 1)).await??;
    ensure!(answer["content"] == "whole" && answer["attempt"] == 2, "{answer}");
    Ok(())
}

#[tokio::test]
async fn an_answer_belongs_to_the_brain_and_not_to_a_socket() -> Result<()> {
    let mut chat = Conversation::with_stack(Dialect::OpenAi, |it, _| Ok(it.gateways(2))).await?;
    let (_, driver) = chat.start_answer(&["One "]).await?;
    chat.stack.kill_gateway(0).await?;
    driver.delta("two");
    driver.step(Step::Finish { input: 1, output: 2 });
    drop(driver);
    chat.provider.wait_until(|calls| calls[0].ended() == Some(End::Finished)).await?;
    let mut back = chat.stack.user_at("ana", 1)?.connect().await?;
    back.open(&chat.session).await?;
    let answer = back.answer(&chat.session, 1).await?;
    ensure!(answer["content"] == "One two" && answer["attempt"] == 1, "{answer}");
    ensure!(chats(&chat.provider.journal()) == 1, "{} calls", chats(&chat.provider.journal()));
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_does_not_slow_others() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    let (mut stuck, _) = chat.stack.user("ana")?.device("stuck").receive_buffer(4096).buffer(1024).upgrade().await?;
    let open = json!({ "type": "session_open", "session_id": chat.session, "id": "open" });
    futures_util::SinkExt::send(&mut stuck, tungstenite::Message::text(open.to_string())).await?;
    let mut reader = chat.connect("laptop").await?;
    // Answers of 100 kB, as deltas and as a final entry, until all buffers on the way are full.
    let piece = "x".repeat(10_000);
    chat.provider.always(Script::answer(vec![piece; 10]).paced(Duration::from_millis(1)));
    let mut full = false;
    for _ in 0..60 {
        let ack = chat.ana.say(&chat.session, "a lot, please").await?;
        let seq = ack.number("/seq").context("no seq")?;
        for connection in [&mut chat.ana, &mut reader] {
            let answer = connection.answer(&chat.session, seq).await?;
            ensure!(answer["content"].as_str().map(str::len) == Some(100_000), "the text is not whole");
        }
        let metrics = raw_http::get(chat.stack.gateway_ops(0), "/metrics").await?.text();
        full =
            metrics.lines().any(|line| line.starts_with("chatbox_gateway_slow_closes_total") && line.ends_with(" 1"));
        if full {
            break;
        }
    }
    ensure!(full, "a client that does not read is not closed");
    // Now the client reads: first the sent frames, then the close.
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
