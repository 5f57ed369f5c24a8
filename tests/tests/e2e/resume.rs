//! Resuming a session: exactly the missed entries, then live events, without a silent gap.

use anyhow::{Result, ensure};
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::{Dialect, Stack};
use chatbox_tests::provider::{FakeProvider, Script};
use serde_json::json;

/// The seqs of the entries that came between the reply to the last `session_open` and its `session_ready`.
fn replayed(connection: &Connection) -> Vec<u64> {
    let from = connection.frames.iter().rposition(|frame| frame.is("session") && !frame.at("/reply_to").is_null());
    let frames = connection.frames[from.unwrap_or_default()..].iter();
    let replay = frames.take_while(|frame| !frame.is("session_ready")).filter(|frame| frame.is("entry"));
    replay.filter_map(|frame| frame.number("/entry/seq")).collect()
}

#[tokio::test]
async fn after_seq_replays_exactly_the_missed_entries() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut phone = stack.user("ana")?.device("phone").connect().await?;
    phone.open(&session).await?;
    phone.converse(&session, "one").await?;
    let mut laptop = stack.user("ana")?.device("laptop").connect().await?;
    laptop.open(&session).await?;
    laptop.vanish();
    phone.converse(&session, "two").await?;
    phone.converse(&session, "three").await?;

    let mut back = stack.user("ana")?.device("laptop").connect().await?;
    let epoch = phone.log(&session)?.summary["epoch"].clone();
    let open = json!({ "type": "session_open", "session_id": session, "after_seq": 2, "epoch": epoch });
    let reply = back.open_with(open).await?;
    ensure!(reply.at("/session/reset").is_null() && reply.at("/session/truncated_before").is_null(), "{}", reply.raw);
    ensure!(replayed(&back) == [3, 4, 5, 6], "{:?}", replayed(&back));
    let ready = back.seen("session_ready", |frame| frame.is("session_ready")).await?;
    ensure!(ready.number("/seq") == Some(6), "{}", ready.raw);
    phone.converse(&session, "four").await?;
    back.answer(&session, 7).await?;
    for seq in 3..=8 {
        let (here, there) = (back.log(&session)?.entry(seq), phone.log(&session)?.entry(seq));
        ensure!(here.map(|it| &it.entry) == there.map(|it| &it.entry), "entry {seq}: {here:?} / {there:?}");
    }

    // Nothing was missed, so nothing is replayed.
    let open = json!({ "type": "session_open", "session_id": session, "after_seq": 8 });
    back.open_with(open).await?;
    ensure!(replayed(&back).is_empty(), "{:?}", replayed(&back));
    Ok(())
}

#[tokio::test]
async fn a_log_that_cannot_be_continued_is_reset() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "one").await?;
    for open in [
        json!({ "type": "session_open", "session_id": session, "after_seq": 3 }),
        json!({ "type": "session_open", "session_id": session, "after_seq": 9_007_199_254_740_991_u64 }),
        json!({ "type": "session_open", "session_id": session, "after_seq": 1, "epoch": "another" }),
    ] {
        let mut back = stack.user("ana")?.connect().await?;
        let reply = back.open_with(open.clone()).await?;
        ensure!(reply.at("/session/reset") == true, "{open}: {}", reply.raw);
        ensure!(replayed(&back) == [1, 2], "{open}: {:?}", replayed(&back));
        back.log(&session)?.assert_same(ana.log(&session)?)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_long_log_is_replayed_from_its_latest_part_and_says_so() -> Result<()> {
    let stack = Stack::builder().brain("limits.replay_entries", 4)?.start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ensure!(ana.welcome["limits"]["replay_entries"] == 4, "{}", ana.welcome);
    ana.open(&session).await?;
    for turn in 0..4 {
        ana.converse(&session, &format!("message {turn}")).await?;
    }
    let mut back = stack.user("ana")?.connect().await?;
    let reply = back.open(&session).await?;
    ensure!(reply.number("/session/truncated_before") == Some(5), "{}", reply.raw);
    ensure!(replayed(&back) == [5, 6, 7, 8], "{:?}", replayed(&back));

    let mut partly = stack.user("ana")?.connect().await?;
    let reply = partly.open_with(json!({ "type": "session_open", "session_id": session, "after_seq": 2 })).await?;
    ensure!(reply.number("/session/truncated_before") == Some(5), "{}", reply.raw);
    let mut whole = stack.user("ana")?.connect().await?;
    let reply = whole.open_with(json!({ "type": "session_open", "session_id": session, "after_seq": 4 })).await?;
    ensure!(reply.at("/session/truncated_before").is_null(), "{}", reply.raw);

    let earlier = json!({ "type": "history", "session_id": session, "before_seq": 5 });
    let earlier = back.ask_ok(earlier).await?;
    ensure!(earlier.at("/entries").as_array().map(Vec::len) == Some(4), "{}", earlier.raw);
    Ok(())
}

#[tokio::test]
async fn a_long_replay_arrives_whole_while_new_messages_come_in() -> Result<()> {
    let provider = FakeProvider::start().await?;
    let stack = Stack::builder().model(Model::at("bird", Dialect::OpenAi, &provider.url())).start().await?;
    let session = new_session();
    let mut writer = stack.user("ana")?.connect().await?;
    writer.open(&session).await?;
    // Far more than the send queue of a connection holds.
    let text = "x".repeat(20_000);
    provider.always(Script::answer([text.clone()]));
    for _ in 0..20 {
        writer.converse(&session, &text).await?;
    }
    for _ in 0..5 {
        let mut reader = stack.user("ana")?.connect().await?;
        let ack = {
            let (_, ack) = tokio::try_join!(reader.open(&session), writer.say(&session, &text))?;
            ack
        };
        let seq = ack.number("/seq").unwrap_or_default();
        reader.answer(&session, seq).await?;
        writer.answer(&session, seq).await?;
        reader.log(&session)?.assert_gapless()?;
        reader.log(&session)?.assert_same(writer.log(&session)?)?;
    }
    Ok(())
}
