//! Services that end and start again: the conversation is kept, and clients of a running gateway do not notice.

use std::time::Duration;

use anyhow::{Result, ensure};
use chatbox_tests::harness::connection::{new_session, user_message};
use chatbox_tests::harness::waits::{with_noise, within_time};
use chatbox_tests::harness::{Stack, StoreAt};
use uuid::Uuid;

/// How long the gateway keeps a request while it reaches no brain.
const NO_BRAIN: Duration = Duration::from_secs(5);

async fn both_services(store: StoreAt) -> Result<()> {
    let mut stack = Stack::builder().store(store).start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "before").await?;
    ana.settle().await?;

    stack.kill_gateway(0).await?;
    stack.kill_brain().await?;
    ensure!(ana.closed().await?.code == 1006, "the gateway is dead");
    stack.start_brain().await?;
    stack.start_gateway(0).await?;

    let mut back = stack.user("ana")?.connect().await?;
    let opened = back.open(&session).await?;
    ensure!(opened.at("/session/epoch") == &ana.log(&session)?.summary["epoch"], "{}", opened.raw);
    back.log(&session)?.assert_same(ana.log(&session)?)?;
    back.converse(&session, "after").await?;
    back.log(&session)?.assert_gapless()?;
    ensure!(back.log(&session)?.last_seq() == 4, "{}", back.log(&session)?.last_seq());
    Ok(())
}

#[tokio::test]
async fn the_conversation_survives_the_death_of_both_services_on_sqlite() -> Result<()> {
    both_services(StoreAt::Sqlite).await
}

#[tokio::test]
async fn the_conversation_survives_the_death_of_both_services_on_mongodb() -> Result<()> {
    both_services(StoreAt::mongodb().await?).await
}

#[tokio::test]
async fn clients_do_not_notice_that_an_idle_brain_was_replaced() -> Result<()> {
    let mut stack = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "one").await?;
    ana.settle().await?;
    let before = ana.frames.len();

    stack.kill_brain().await?;
    // Sent while no brain runs: the gateway keeps the request until a brain runs.
    let id = Uuid::new_v4().to_string();
    let request = ana.post(user_message(&session, &id, "two")).await?;
    stack.start_brain().await?;
    let reply = within_time(with_noise(NO_BRAIN), "the acknowledgement", ana.reply(&request)).await??;
    ensure!(reply.is("ack") && reply.number("/seq") == Some(3), "{}", reply.raw);
    // The answer arrives on the same socket, without opening the session again.
    ana.answer(&session, 3).await?;
    ana.log(&session)?.assert_gapless()?;
    let notices = ana.frames[before..].iter().filter(|frame| frame.is("notice")).count();
    ensure!(notices == 0, "the change of the brain was shown");
    Ok(())
}

#[tokio::test]
async fn a_request_is_refused_as_retryable_while_no_brain_comes_back() -> Result<()> {
    let mut stack = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;

    stack.kill_brain().await?;
    let id = Uuid::new_v4().to_string();
    let refusal = ana.ask_refused(user_message(&session, &id, "one"), "unavailable");
    let refused = within_time(with_noise(NO_BRAIN), "the refusal", refusal).await??;
    ensure!(refused.at("/retryable") == true, "{}", refused.raw);

    stack.start_brain().await?;
    stack.ready().await?;
    let seq = ana.say_as(&session, &id, "one").await?.number("/seq");
    ensure!(seq == Some(1), "{seq:?}");
    ana.answer(&session, 1).await?;
    Ok(())
}

#[tokio::test]
async fn both_services_end_at_once_and_well_when_asked() -> Result<()> {
    let mut stack =
        Stack::builder().gateway("shutdown.drain_seconds", 1)?.brain("shutdown.drain_seconds", 1)?.start().await?;
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&new_session()).await?;
    let asked = tokio::time::Instant::now();
    stack.term_gateway(0).await?;
    stack.term_brain().await?;
    // One second of drain and half a second to end, for each.
    ensure!(asked.elapsed() <= with_noise(Duration::from_secs(3)), "it took {:?}", asked.elapsed());
    ensure!(ana.closed().await?.code == 1012, "{:?}", ana.closed().await?);
    Ok(())
}
