//! Two brains with one store: they share the users, and either can end at any moment. A client notices at most another
//! attempt of an answer.

use std::time::Duration;

use anyhow::{Result, ensure};
use chatbox_tests::harness::connection::new_session;
use chatbox_tests::harness::waits::{eventually, with_noise};
use chatbox_tests::harness::{Conversation, Dialect, StoreAt, at_rest, brains, raw_http};
use chatbox_tests::provider::{Script, Step};
use tokio::time::Instant;

use super::store_down::acknowledged;

/// How long a brain owns an answer without renewing its lease.
const LEASE: Duration = Duration::from_secs(2);
/// The promise: the first delta of the next attempt comes this long after the owner was killed.
const AFTER_KILL: Duration = LEASE.saturating_add(Duration::from_secs(2));
/// The promise is 1 s after SIGTERM. Today the owner first drains (`shutdown.drain_seconds`, 1 s here), and then the other
/// brain finds the released lease with its next look (`answers.sweep_interval_ms`, 1 s).
const AFTER_TERM: Duration = Duration::from_millis(2500);

/// A conversation over two brains that share one store.
async fn start() -> Result<Conversation> {
    let store = StoreAt::mongodb().await?;
    let lease = i64::try_from(LEASE.as_millis())?;
    Conversation::with_stack(Dialect::OpenAi, |stack, _| {
        stack.store(store).brains(2).brain("answers.lease_ms", lease)?.brain("shutdown.drain_seconds", 1)
    })
    .await
}

/// No client was told of anything, and the log of each client is the log of the store.
async fn unnoticed(chat: &mut Conversation) -> Result<()> {
    chat.ana.settle().await?;
    let shown = chat.ana.frames.iter().find(|frame| frame.is("notice") || frame.is("error"));
    ensure!(shown.is_none(), "the client was told: {:?}", shown.map(|frame| &frame.raw));
    at_rest::assert_log_is_stored(&chat.stack, &chat.ana, &chat.session).await?;
    chat.assert_replay_is_same().await
}

#[tokio::test]
async fn all_devices_of_one_user_are_served_by_one_brain_and_see_the_same() -> Result<()> {
    let mut chat = start().await?;
    let mut devices = Vec::new();
    for device in ["laptop", "tablet", "watch"] {
        let mut connection = chat.stack.user("ana")?.device(device).connect().await?;
        connection.open(&chat.session).await?;
        devices.push(connection);
    }
    let served = chat.stack.served().await?;
    ensure!(served.contains(&Some(4)) && served.contains(&Some(0)), "served: {served:?}");
    let (seq, driver) = chat.start_answer(&["One ", "two "]).await?;
    for device in &mut devices {
        device.shown(&chat.session, seq, "One two ").await?;
    }
    driver.step(Step::Finish { input: 1, output: 2 });
    chat.ana.answer(&chat.session, seq).await?;
    for device in &mut devices {
        device.answer(&chat.session, seq).await?;
        device.log(&chat.session)?.assert_same(chat.ana.log(&chat.session)?)?;
    }
    // Each brain serves some of many users.
    let mut others = Vec::new();
    for index in 0..16 {
        others.push(chat.stack.user(&format!("user-{index}"))?.connect().await?);
    }
    let served = chat.stack.served().await?;
    ensure!(served.iter().all(|count| count.is_some_and(|count| count > 0)), "served: {served:?}");
    unnoticed(&mut chat).await
}

#[tokio::test]
async fn the_death_of_the_brain_in_the_middle_of_an_answer_begins_it_anew_on_the_other() -> Result<()> {
    let mut chat = start().await?;
    let mut laptop = chat.stack.user("ana")?.device("laptop").connect().await?;
    laptop.open(&chat.session).await?;
    let (seq, _driver) = chat.start_answer(&["lost ", "words"]).await?;
    let victim = chat.stack.answering().await?;
    chat.provider.script(Script::answer(["a new ", "answer"]));
    let killed = Instant::now();
    chat.stack.kill_brain_at(victim).await?;
    chat.ana.shown(&chat.session, seq, "a new ").await?;
    ensure!(killed.elapsed() <= with_noise(AFTER_KILL), "the new attempt took {:?}", killed.elapsed());
    let answer = chat.ana.answer(&chat.session, seq).await?;
    ensure!(answer["content"] == "a new answer" && answer["attempt"] == 2 && answer["state"] == "final", "{answer}");
    ensure!(chat.calls().len() == 2, "{} calls", chat.calls().len());
    laptop.answer(&chat.session, seq).await?;
    laptop.log(&chat.session)?.assert_same(chat.ana.log(&chat.session)?)?;

    chat.provider.script(Script::answer(["and on"]));
    ensure!(chat.ana.converse(&chat.session, "go on").await?["content"] == "and on", "no next answer");
    // The brain starts again, and the conversation goes on at whichever brain serves the user.
    chat.stack.start_brain_at(victim).await?;
    chat.stack.linked(2).await?;
    chat.provider.script(Script::answer(["still here"]));
    ensure!(chat.ana.converse(&chat.session, "and now?").await?["content"] == "still here", "no next answer");
    unnoticed(&mut chat).await
}

#[tokio::test]
async fn a_brain_that_is_asked_to_end_hands_its_answer_to_the_other() -> Result<()> {
    let mut chat = start().await?;
    let (seq, _driver) = chat.start_answer(&["half "]).await?;
    let leaving = chat.stack.answering().await?;
    chat.provider.script(Script::answer(["whole"]));
    let asked = Instant::now();
    let ending = chat.stack.brain_process_at(leaving);
    ending.terminate()?;
    chat.ana.shown(&chat.session, seq, "whole").await?;
    ensure!(asked.elapsed() <= with_noise(AFTER_TERM), "the new attempt took {:?}", asked.elapsed());
    let answer = chat.ana.answer(&chat.session, seq).await?;
    chat.stack.brain_ended_at(leaving).await?;
    ensure!(answer["content"] == "whole" && answer["attempt"] == 2, "{answer}");
    ensure!(chat.calls().len() == 2, "{} calls", chat.calls().len());
    chat.provider.script(Script::answer(["and on"]));
    ensure!(chat.ana.converse(&chat.session, "go on").await?["content"] == "and on", "no next answer");
    unnoticed(&mut chat).await
}

#[tokio::test]
async fn an_owner_that_is_paused_beyond_its_lease_and_continued_writes_and_shows_nothing_more() -> Result<()> {
    let mut chat = start().await?;
    let mut laptop = chat.connect("laptop").await?;
    let (seq, driver) = chat.start_answer(&["lost ", "words"]).await?;
    let owner = chat.stack.answering().await?;
    chat.provider.script(Script::answer(["a new ", "answer"]));
    chat.stack.brain_process_at(owner).freeze()?;
    // More text for the owner: it is read when the owner is continued.
    driver.delta(" too late");
    let answer = chat.ana.answer(&chat.session, seq).await?;
    ensure!(answer["content"] == "a new answer" && answer["attempt"] == 2 && answer["state"] == "final", "{answer}");
    ensure!(chat.calls().len() == 2, "{} calls", chat.calls().len());

    chat.stack.brain_process_at(owner).thaw()?;
    driver.step(Step::Finish { input: 1, output: 3 });
    eventually("the former owner to give the answer up", || async {
        let running = brains::metric(chat.stack.brain_ops_at(owner), "chatbox_brain_answers_running").await?;
        ensure!(running == 0, "it still generates");
        Ok(())
    })
    .await?;
    chat.stack.linked(2).await?;
    // A late delta or end would be a frame that the client's log refuses.
    laptop.settle().await?;
    laptop.log(&chat.session)?.assert_same(chat.ana.log(&chat.session)?)?;
    chat.provider.script(Script::answer(["and on"]));
    ensure!(chat.ana.converse(&chat.session, "go on").await?["content"] == "and on", "no next answer");
    ensure!(chat.calls().len() == 3, "{} calls", chat.calls().len());
    unnoticed(&mut chat).await
}

#[tokio::test]
async fn an_answer_that_ends_in_the_time_to_drain_is_not_begun_anew() -> Result<()> {
    let mut chat = start().await?;
    let (seq, driver) = chat.start_answer(&["half "]).await?;
    let leaving = chat.stack.answering().await?;
    let served = chat.stack.served().await?[leaving];
    ensure!(served == Some(1), "served: {served:?}");
    // The client moves to the other brain at once and receives the rest of the text with the final entry.
    chat.ana.may_miss_deltas(&chat.session);
    driver.delta("and whole");
    driver.step(Step::Finish { input: 1, output: 2 });
    chat.stack.term_brain_at(leaving).await?;
    let answer = chat.ana.answer(&chat.session, seq).await?;
    ensure!(answer["content"] == "half and whole" && answer["attempt"] == 1, "{answer}");
    ensure!(chat.calls().len() == 1, "{} calls", chat.calls().len());
    unnoticed(&mut chat).await
}

#[tokio::test]
async fn users_who_all_speak_while_brains_come_and_go_lose_nothing() -> Result<()> {
    let mut chat = start().await?;
    chat.provider.always(Script::answer(["some ", "words ", "back"]).paced(Duration::from_millis(20)));
    let mut talks = Vec::new();
    for index in 0..6 {
        let session = new_session();
        let mut connection = chat.stack.user(&format!("user-{index}"))?.connect().await?;
        connection.open(&session).await?;
        // Clients that have moved receive only the final entry of an answer that a draining brain finishes.
        connection.may_miss_deltas(&session);
        talks.push((connection, session));
    }
    for round in 0..4 {
        let turns = talks.iter_mut().map(|(connection, session)| async move {
            for turn in 0..3 {
                // A client resends a message under the same id.
                let id = uuid::Uuid::new_v4().to_string();
                let text = format!("round {round}, message {turn}");
                acknowledged(connection, session, &id, &text).await?;
            }
            anyhow::Ok(())
        });
        let speaking = futures_util::future::try_join_all(turns);
        let changing = async {
            match round {
                0 => chat.stack.kill_brain_at(0).await,
                1 => {
                    chat.stack.start_brain_at(0).await?;
                    chat.stack.linked(2).await
                }
                2 => chat.stack.term_brain_at(1).await,
                _ => chat.stack.start_brain_at(1).await,
            }
        };
        let (spoken, changed) = tokio::join!(speaking, changing);
        spoken?;
        changed?;
    }
    for (connection, session) in &mut talks {
        let asked: Vec<u64> = connection
            .log(session)?
            .entries()
            .filter(|(_, seen)| seen.entry["sender"]["role"] == "user")
            .map(|(seq, _)| seq)
            .collect();
        for seq in asked {
            let answer = connection.answer(session, seq).await?;
            ensure!(answer["content"] == "some words back", "{answer}");
        }
        connection.settle().await?;
        let log = connection.log(session)?;
        let messages = log.entries().filter(|(_, seen)| seen.entry["sender"]["role"] == "user").count();
        ensure!(messages == 12 && log.last_seq() == 24, "{messages} messages, {} entries", log.last_seq());
        at_rest::assert_log_is_stored(&chat.stack, connection, session).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_gateway_without_any_brain_keeps_its_sockets_and_says_that_it_is_not_ready() -> Result<()> {
    let mut chat = start().await?;
    chat.provider.always(Script::answer(["here"]));
    chat.ana.converse(&chat.session, "hello").await?;
    chat.stack.kill_brain_at(0).await?;
    chat.stack.kill_brain_at(1).await?;
    eventually("/readyz of the gateway to say 503", || async {
        let answer = raw_http::get(chat.stack.gateway_ops(0), "/readyz").await?;
        ensure!(answer.status == 503, "{}", answer.status);
        Ok(())
    })
    .await?;
    let refused = chat.stack.user("ben")?.response().await?;
    ensure!(refused.status == 503 && refused.header("retry-after").is_some(), "{}", refused.status);
    chat.stack.start_brain_at(1).await?;
    chat.stack.ready().await?;
    ensure!(chat.ana.converse(&chat.session, "again").await?["content"] == "here", "no answer");
    unnoticed(&mut chat).await
}
