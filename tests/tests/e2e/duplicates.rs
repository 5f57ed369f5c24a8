//! Duplicates of a message, through any gateway: stored once, acknowledged with the same fields, answered once.

use anyhow::{Result, ensure};
use chatbox_tests::harness::connection::{new_session, user_message};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::{Dialect, Frame, Stack};
use chatbox_tests::provider::FakeProvider;
use serde_json::Value;
use tokio::task::JoinSet;
use uuid::Uuid;

/// The fields that are equal in all acknowledgements of one message.
fn essence(ack: &Frame) -> Vec<Value> {
    ["/session_id", "/client_msg_id", "/message_id", "/seq", "/created_at"].map(|it| ack.at(it).clone()).to_vec()
}

#[tokio::test]
async fn sending_again_gives_the_same_ack_and_stores_nothing() -> Result<()> {
    let mut stack = Stack::builder().start().await?;
    let (session, id) = (new_session(), Uuid::new_v4().to_string());
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    let first = ana.say_as(&session, &id, "hello").await?;
    ensure!(first.at("/duplicate") == false && first.number("/seq") == Some(1), "{}", first.raw);
    ana.answer(&session, 1).await?;

    let again = ana.say_as(&session, &id, "hello").await?;
    ensure!(again.at("/duplicate") == true && essence(&again) == essence(&first), "{}\n{}", first.raw, again.raw);

    // The same UUID in upper case.
    let shouted = ana.ask_ok(user_message(&session, &id.to_uppercase(), "hello")).await?;
    ensure!(shouted.at("/duplicate") == true && shouted.at("/seq") == 1, "{}", shouted.raw);

    ana.vanish();
    let mut back = stack.user("ana")?.connect().await?;
    let after = back.say_as(&session, &id, "hello").await?; // without opening the session
    ensure!(after.at("/duplicate") == true && essence(&after) == essence(&first), "{}", after.raw);

    stack.restart_brain().await?;
    stack.ready().await?;
    let restarted = back.say_as(&session, &id, "hello").await?;
    ensure!(restarted.at("/duplicate") == true && essence(&restarted) == essence(&first), "{}", restarted.raw);

    let other = back.ask_refused(user_message(&session, &id, "hello!"), "conflict").await?;
    ensure!(other.at("/retryable") == false, "{}", other.raw);

    back.open(&session).await?;
    ensure!(back.log(&session)?.last_seq() == 2, "more than one message and one answer");
    Ok(())
}

#[tokio::test]
async fn racing_copies_through_two_gateways_make_one_entry_and_one_answer() -> Result<()> {
    let stack = Stack::builder().gateways(2).start().await?;
    let (session, id) = (new_session(), Uuid::new_v4().to_string());
    let mut watcher = stack.user("ana")?.connect().await?;
    watcher.open(&session).await?;
    let mut racing = JoinSet::new();
    for index in 0..8 {
        let mut sender = stack.user_at("ana", index % 2)?.connect().await?;
        let (session, id) = (session.clone(), id.clone());
        racing.spawn(async move { sender.say_as(&session, &id, "hello").await });
    }
    let mut acks = Vec::new();
    while let Some(ack) = racing.join_next().await {
        acks.push(ack??);
    }
    let fresh = acks.iter().filter(|ack| ack.at("/duplicate") == false).count();
    ensure!(fresh == 1, "{fresh} copies were new");
    for ack in &acks {
        ensure!(essence(ack) == essence(&acks[0]), "{}\n{}", ack.raw, acks[0].raw);
    }
    watcher.answer(&session, 1).await?;
    watcher.settle().await?;
    ensure!(watcher.log(&session)?.last_seq() == 2, "more than one message and one answer");
    Ok(())
}

#[tokio::test]
async fn the_same_id_in_another_session_is_another_message() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let (one, two, id) = (new_session(), new_session(), Uuid::new_v4().to_string());
    let mut ana = stack.user("ana")?.connect().await?;
    for session in [&one, &two] {
        ana.open(session).await?;
        let ack = ana.say_as(session, &id, "hello").await?;
        ensure!(ack.at("/duplicate") == false && ack.at("/seq") == 1, "{}", ack.raw);
        ana.answer(session, 1).await?;
    }
    Ok(())
}

#[tokio::test]
async fn many_senders_in_one_session_get_numbers_without_gap_or_repeat() -> Result<()> {
    let provider = FakeProvider::start().await?;
    let model = Model::at("bird", Dialect::OpenAi, &provider.url());
    let stack = Stack::builder().model(model).gateways(2).start().await?;
    let session = new_session();
    let mut watcher = stack.user("ana")?.connect().await?;
    watcher.open(&session).await?;
    let mut sending = JoinSet::new();
    for index in 0..6 {
        let mut sender = stack.user_at("ana", index % 2)?.connect().await?;
        let session = session.clone();
        sending.spawn(async move {
            let mut seqs = Vec::new();
            for turn in 0..10 {
                let ack = sender.say(&session, &format!("{index}/{turn}")).await?;
                seqs.push(ack.number("/seq").unwrap_or_default());
            }
            anyhow::Ok(seqs)
        });
    }
    let mut seqs = Vec::new();
    while let Some(sent) = sending.join_next().await {
        let sent = sent??;
        ensure!(sent.is_sorted(), "one sender's messages changed their order: {sent:?}");
        seqs.extend(sent);
    }
    let total = seqs.len();
    seqs.sort_unstable();
    seqs.dedup();
    ensure!(seqs.len() == total, "a number was given twice");
    // Every message gets exactly one answer.
    for seq in seqs {
        watcher.answer(&session, seq).await?;
    }
    watcher.settle().await?;
    watcher.log(&session)?.assert_gapless()?;
    ensure!(watcher.log(&session)?.last_seq() == 120, "{}", watcher.log(&session)?.last_seq());
    Ok(())
}
