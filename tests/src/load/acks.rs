//! Durable acknowledgements per second on a single-member replica set, beside what the bare driver does with the same
//! documents and indexes on the same server.
//!
//! A human assists in every session, so the AI does not answer: only the append to the log is measured.

use std::time::Duration;

use anyhow::{Context, Result};
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::{ClientOptions, CollectionOptions, WriteConcern};
use mongodb::{Client, Collection};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::client::LeanClient;
use super::report::{Latencies, Table, rate};
use crate::harness::binaries::Profile;
use crate::harness::connection::user_message;
use crate::harness::{Stack, StoreAt, at_rest, tokens};
use crate::mongod::Mongod;

/// Connections of the bare driver, as many as the brain's default.
const POOL: u32 = 50;

/// One row of the report.
struct Run {
    count: u64,
    time: Duration,
    latencies: Latencies,
}

/// Measures with each number of senders in turn and returns the report.
///
/// # Errors
/// Something did not start, or a message was refused.
pub async fn measure(senders: &[usize], time: Duration) -> Result<String> {
    let server = Mongod::start().await?;
    let uri = server.uri();
    let stack = Stack::builder()
        .profile(Profile::PreferRelease)
        .store(StoreAt::mongo(&uri))
        .gateway("limits.handshakes_per_minute", 1_000_000)?
        .gateway("limits.handshake_burst", 1_000_000)?
        .gateway("limits.requests_per_second", 100_000)?
        .gateway("limits.request_burst", 100_000)?
        .start()
        .await?;
    let mut table = Table::new(&[
        "senders", "acks/s", "p50 ms", "p99 ms", "max ms", "driver/s", "p50 ms", "p99 ms", "max ms", "ratio",
    ]);
    for count in senders {
        let mut acks = send(&stack, *count, time).await?;
        let mut bare = insert(&uri, stack.store(), *count, time).await?;
        let (ack_rate, bare_rate) = (rate(acks.count, acks.time), rate(bare.count, bare.time));
        let mut row = vec![count.to_string(), format!("{ack_rate:.0}")];
        row.extend(acks.latencies.cells());
        row.push(format!("{bare_rate:.0}"));
        row.extend(bare.latencies.cells());
        row.push(format!("{:.2}", ack_rate / bare_rate));
        table.row(row);
    }
    Ok(format!("{}each run {:.0} s; one message under way per sender\n", table.text(), time.as_secs_f64()))
}

/// Each sender: one connection, one session, the next message once the last one is acknowledged.
async fn send(stack: &Stack, senders: usize, time: Duration) -> Result<Run> {
    let mut clients = Vec::new();
    let token = tokens::hs256(stack.secret(), &tokens::admin_claims("assistant"))?;
    let mut admin = LeanClient::open(stack.handshake().bearer(&token), &Uuid::new_v4().to_string()).await?;
    for index in 0..senders {
        let session = Uuid::new_v4().to_string();
        let mut client = LeanClient::open(stack.user(&format!("sender-{index}"))?, &session).await?;
        admin.send(format!(r#"{{"type":"admin_join","session_id":"{session}"}}"#)).await?;
        client.wait_for(r#""admin_joined""#).await?;
        admin.send(format!(r#"{{"type":"session_close","session_id":"{session}"}}"#)).await?;
        clients.push((client, session));
    }
    let began = Instant::now();
    let mut running: JoinSet<Result<Latencies>> = JoinSet::new();
    for (mut client, session) in clients {
        running.spawn(async move {
            let mut latencies = Latencies::default();
            while began.elapsed() < time {
                let id = Uuid::new_v4().to_string();
                let message = user_message(&session, &id, "a message of the usual length, as people write them");
                let sent = Instant::now();
                client.send(message.to_string()).await?;
                loop {
                    let frame = client.wait_for(&id).await?;
                    if frame.contains(r#""ack""#) {
                        break;
                    }
                }
                latencies.push(u64::try_from(sent.elapsed().as_nanos())?);
            }
            Ok(latencies)
        });
    }
    collect(running, began).await
}

/// The same number of tasks inserting copies of a stored message into a collection with the same indexes.
async fn insert(uri: &str, store: &StoreAt, senders: usize, time: Duration) -> Result<Run> {
    let messages = at_rest::mongo(store).await?.collection::<Document>("messages");
    let sample = messages.find_one(doc! { "cmid": { "$exists": true } }).await?.context("no message to copy")?;
    let mut options = ClientOptions::parse(uri).await?;
    options.max_pool_size = Some(POOL);
    let database = Client::with_options(options)?.database(messages.namespace().db.as_str());
    let concern = WriteConcern::builder().w(mongodb::options::Acknowledgment::Majority).journal(true).build();
    let bare: Collection<Document> =
        database.collection_with_options("bare_inserts", CollectionOptions::builder().write_concern(concern).build());
    bare.drop().await?;
    let mut indexes = messages.list_indexes().await?;
    while let Some(index) = indexes.try_next().await? {
        bare.create_index(index).await?;
    }
    let began = Instant::now();
    let mut running: JoinSet<Result<Latencies>> = JoinSet::new();
    for _ in 0..senders {
        let (bare, mut document) = (bare.clone(), sample.clone());
        let session = other_id(&sample, "sid")?;
        running.spawn(async move {
            let mut latencies = Latencies::default();
            let mut seq = 0_i64;
            document.insert("sid", session);
            while began.elapsed() < time {
                seq += 1;
                document.insert("seq", seq);
                document.insert("_id", other_id(&document, "_id")?);
                document.insert("cmid", other_id(&document, "cmid")?);
                let sent = Instant::now();
                bare.insert_one(&document).await?;
                latencies.push(u64::try_from(sent.elapsed().as_nanos())?);
            }
            Ok(latencies)
        });
    }
    collect(running, began).await
}

/// A new id in the same representation as the one the document has.
fn other_id(document: &Document, field: &str) -> Result<Bson> {
    let id = Uuid::now_v7();
    Ok(match document.get(field).context("the field is not there")? {
        Bson::Binary(_) => Bson::Binary(bson::Uuid::from_bytes(id.into_bytes()).into()),
        _ => Bson::String(id.to_string()),
    })
}

async fn collect(mut running: JoinSet<Result<Latencies>>, began: Instant) -> Result<Run> {
    let mut latencies = Latencies::default();
    while let Some(one) = running.join_next().await {
        latencies.extend(one??);
    }
    Ok(Run { count: u64::try_from(latencies.count())?, time: began.elapsed(), latencies })
}
