//! The link between a running gateway and a running brain breaks: no client sees a gap, an error, or another
//! `session_ready`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::brains::metric;
use chatbox_tests::harness::connection::user_message;
use chatbox_tests::harness::waits::{eventually, with_noise};
use chatbox_tests::harness::{Conversation, Dialect};
use chatbox_tests::provider::{Script, Step};
use tokio::time::Instant;
use uuid::Uuid;

async fn start() -> Result<Conversation> {
    Conversation::with_stack(Dialect::OpenAi, |stack, _| Ok(stack.proxied())).await
}

/// The client saw nothing but the conversation, and the answers were generated once.
async fn unnoticed(chat: &mut Conversation) -> Result<()> {
    chat.ana.settle().await?;
    let log = chat.ana.log(&chat.session)?;
    log.assert_gapless()?;
    ensure!(log.ready == 1, "session_ready came {} times", log.ready);
    ensure!(log.entries().all(|(_, seen)| seen.entry["attempt"].as_u64().unwrap_or(1) == 1), "a second attempt");
    let shown = chat.ana.frames.iter().find(|frame| frame.is("notice") || frame.is("error"));
    ensure!(shown.is_none(), "the client was told: {:?}", shown.map(|frame| &frame.raw));
    chat.assert_replay_is_same().await
}

/// How many links the gateway has lost.
async fn losses(chat: &Conversation) -> Result<u64> {
    metric(chat.stack.gateway_ops(0), "chatbox_gateway_link_losses_total").await
}

#[tokio::test]
async fn a_link_that_is_cut_again_and_again_in_an_answer_leaves_no_gap() -> Result<()> {
    let mut chat = start().await?;
    let (seq, driver) = chat.start_answer(&["piece 0 "]).await?;
    let mut text = "piece 0 ".to_owned();
    for cut in 1..=5 {
        chat.stack.proxy(0).cut();
        // Deltas from before and after the link is up again.
        for part in ["a ", "b "] {
            let piece = format!("piece {cut}{part}");
            driver.delta(&piece);
            text.push_str(&piece);
        }
        chat.ana.shown(&chat.session, seq, &text).await?;
    }
    driver.step(Step::Finish { input: 1, output: 11 });
    let answer = chat.ana.answer(&chat.session, seq).await?;
    ensure!(answer["content"] == text, "{answer}");
    ensure!(losses(&chat).await? == 5, "{} links were lost", losses(&chat).await?);
    ensure!(chat.calls().len() == 1, "asked twice");
    unnoticed(&mut chat).await
}

#[tokio::test]
async fn a_message_sent_while_the_link_breaks_is_stored_and_answered_once() -> Result<()> {
    let mut chat = start().await?;
    chat.provider.always(Script::answer(["an ", "answer"]));
    for turn in 0..10 {
        let id = Uuid::new_v4().to_string();
        let request = chat.ana.post(user_message(&chat.session, &id, &format!("message {turn}"))).await?;
        chat.stack.proxy(0).cut();
        let ack = chat.ana.reply(&request).await?;
        ensure!(ack.is("ack"), "{}", ack.raw);
        let seq = ack.number("/seq").context("no seq")?;
        ensure!(seq == 2 * turn + 1, "message {turn} stands at {seq}");
        chat.ana.answer(&chat.session, seq).await?;
    }
    ensure!(chat.ana.log(&chat.session)?.last_seq() == 20, "{}", chat.ana.log(&chat.session)?.last_seq());
    unnoticed(&mut chat).await
}

#[tokio::test]
async fn a_link_that_swallows_everything_is_noticed_and_replaced() -> Result<()> {
    let mut chat = start().await?;
    let (seq, driver) = chat.start_answer(&["before "]).await?;
    let begun = Instant::now();
    chat.stack.proxy(0).swallow();
    driver.delta("lost on the way ");
    eventually("the gateway to notice", || async {
        ensure!(losses(&chat).await? > 0, "no loss of the link is counted");
        Ok(())
    })
    .await?;
    // The promise: 5 s.
    ensure!(begun.elapsed() <= with_noise(Duration::from_secs(5)), "noticed after {:?}", begun.elapsed());
    chat.stack.proxy(0).cut();
    chat.ana.shown(&chat.session, seq, "before lost on the way ").await?;
    driver.delta("and after");
    driver.step(Step::Finish { input: 1, output: 3 });
    let answer = chat.ana.answer(&chat.session, seq).await?;
    ensure!(answer["content"] == "before lost on the way and after", "{answer}");
    unnoticed(&mut chat).await
}
