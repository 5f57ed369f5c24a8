//! Several connections of one user: all receive the same. A connection above the limit, or of the same device, replaces an
//! earlier one.

use anyhow::{Result, ensure};
use chatbox_tests::harness::Stack;
use chatbox_tests::harness::connection::{Connection, new_session};

async fn replaced(connection: &mut Connection) -> Result<()> {
    let notice = connection.until("the notice", |frame| frame.is("notice")).await?;
    ensure!(notice.text("/code") == "connection_replaced", "{}", notice.raw);
    let closed = connection.closed().await?;
    ensure!(closed.code == 4002, "{closed:?}");
    ensure!(connection.frames.last().map(|frame| &frame.raw) == Some(&notice.raw), "something came after the notice");
    Ok(())
}

#[tokio::test]
async fn all_devices_see_the_same_log_and_the_same_deltas() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut devices = Vec::new();
    for device in ["phone", "laptop", "tablet", "watch"] {
        let mut connection = stack.user("ana")?.device(device).connect().await?;
        connection.open(&session).await?;
        devices.push(connection);
    }
    for turn in 0..3_usize {
        let speaker = turn % devices.len();
        let ack = devices[speaker].say(&session, &format!("message {turn}")).await?;
        let seq = ack.number("/seq").unwrap_or_default();
        for device in &mut devices {
            device.answer(&session, seq).await?;
        }
    }
    let deltas = |connection: &Connection| -> Vec<String> {
        connection.frames.iter().filter(|frame| frame.is("ai_delta")).map(|frame| frame.raw.clone()).collect()
    };
    ensure!(deltas(&devices[0]).len() >= 3, "no deltas");
    for device in &devices {
        device.log(&session)?.assert_gapless()?;
        device.log(&session)?.assert_same(devices[0].log(&session)?)?;
        ensure!(deltas(device) == deltas(&devices[0]), "other deltas on another device");
    }
    let ids: std::collections::HashSet<&str> = devices.iter().map(Connection::id).collect();
    ensure!(ids.len() == devices.len(), "connection ids are not unique: {ids:?}");
    Ok(())
}

#[tokio::test]
async fn the_same_device_replaces_its_older_connection_and_nothing_is_lost() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut old = stack.user("ana")?.device("phone").connect().await?;
    let mut other = stack.user("ana")?.device("laptop").connect().await?;
    let mut stranger = stack.user("ben")?.device("phone").connect().await?;
    old.open(&session).await?;
    old.converse(&session, "hello").await?;

    let mut new = stack.user("ana")?.device("phone").connect().await?;
    replaced(&mut old).await?;
    new.open(&session).await?;
    new.log(&session)?.assert_same(old.log(&session)?)?;
    other.settle().await?;
    stranger.settle().await?;
    Ok(())
}

#[tokio::test]
async fn the_eleventh_connection_replaces_the_oldest() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let mut connections = Vec::new();
    for _ in 0..10 {
        connections.push(stack.user("ana")?.connect().await?);
    }
    for connection in &mut connections {
        connection.settle().await?;
    }
    connections.push(stack.user("ana")?.connect().await?);
    replaced(&mut connections[0]).await?;
    for connection in &mut connections[1..] {
        connection.settle().await?;
    }
    // A closed connection makes room for another one.
    connections.remove(5).leave().await?;
    let mut again = stack.user("ana")?.connect().await?;
    again.settle().await?;
    connections[1].settle().await?;
    Ok(())
}

#[tokio::test]
async fn a_device_name_that_is_no_name_is_refused() -> Result<()> {
    let stack = Stack::builder().start().await?;
    for device in ["", "a%20b", "x%0d%0ay", "%C3%A4", &"x".repeat(65)] {
        let answer = stack.user("ana")?.device(device).response().await?;
        ensure!(
            answer.status == 400 && answer.code() == "invalid_message",
            "{device:?}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let mut longest = stack.user("ana")?.device(&"x".repeat(64)).connect().await?;
    longest.settle().await?;
    Ok(())
}

#[tokio::test]
async fn two_gateways_on_one_brain_are_one_service() -> Result<()> {
    let stack = Stack::builder().gateways(2).start().await?;
    let session = new_session();
    let mut here = stack.user_at("ana", 0)?.device("phone").connect().await?;
    let mut there = stack.user_at("ana", 1)?.device("laptop").connect().await?;
    here.open(&session).await?;
    there.open(&session).await?;
    let ack = here.say(&session, "hello").await?;
    // Read your writes: the other gateway has the message at once.
    let page = serde_json::json!({ "type": "history", "session_id": session, "before_seq": 100 });
    let history = there.ask_ok(page).await?;
    ensure!(history.at("/entries/0/id") == ack.at("/message_id"), "{}", history.raw);
    here.answer(&session, 1).await?;
    there.answer(&session, 1).await?;
    here.log(&session)?.assert_same(there.log(&session)?)?;

    let _moved = stack.user_at("ana", 1)?.device("phone").connect().await?;
    replaced(&mut here).await?;
    Ok(())
}
