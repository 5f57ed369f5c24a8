//! A primary that has lost its majority: it could still take writes, but nothing is acknowledged until a majority has it.

use anyhow::{Context, Result, ensure};
use bson::doc;
use chatbox_tests::harness::connection::{new_session, user_message};
use chatbox_tests::harness::{Stack, StoreAt, at_rest};
use chatbox_tests::mongod::ReplicaSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::store_down::{acknowledged, refused_in_time};

#[tokio::test]
async fn without_a_majority_nothing_is_acknowledged() -> Result<()> {
    let servers = ReplicaSet::start().await?;
    let stack = Stack::builder().store(StoreAt::mongo(servers.uri())).start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "before").await?;
    ana.settle().await?;

    servers.pause_secondaries().await?;
    let id = Uuid::new_v4().to_string();
    let asked = Instant::now();
    refused_in_time(&mut ana, user_message(&session, &id, "meanwhile")).await?;
    ensure!(!ana.frames.iter().any(|frame| frame.is("ack") && frame.text("/client_msg_id") == id), "acknowledged");
    ensure!(asked.elapsed() < ReplicaSet::STAYS_PRIMARY, "the primary may have stepped down: this proves nothing");

    servers.continue_secondaries()?;
    let seq = acknowledged(&mut ana, &session, &id, "meanwhile").await?.number("/seq").context("no seq")?;
    ana.answer(&session, seq).await?;
    ana.settle().await?;
    at_rest::assert_log_is_stored(&stack, &ana, &session).await?;
    let stored = at_rest::mongo_count(stack.store(), "messages", doc! { "snd": "user" }).await?;
    ensure!(stored == 2, "{stored} user messages in the store");
    Ok(())
}
