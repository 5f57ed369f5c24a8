//! The store is unavailable: nothing is acknowledged without being stored, clients get a retryable error in time, /readyz
//! shows it, and everything works again without a restart.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::doc;
use chatbox_tests::harness::binaries::{Profile, find};
use chatbox_tests::harness::connection::{Connection, new_session, user_message};
use chatbox_tests::harness::process::{Signal, run, signal};
use chatbox_tests::harness::waits::{eventually, with_noise, within_time};
use chatbox_tests::harness::{Frame, Stack, StoreAt, at_rest, raw_http};
use chatbox_tests::mongod::Mongod;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

/// The promise: a retryable error after at most this time.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

/// The request must be refused in time with a retryable error.
pub(super) async fn refused_in_time(connection: &mut Connection, request: serde_json::Value) -> Result<()> {
    let asked = Instant::now();
    let reply = connection.ask(request).await?;
    ensure!(asked.elapsed() <= with_noise(REFUSED_WITHIN), "the error took {:?}", asked.elapsed());
    ensure!(reply.is("error") && reply.text("/code") == "storage_unavailable", "{}", reply.raw);
    ensure!(reply.at("/retryable") == true, "{}", reply.raw);
    Ok(())
}

/// Sends a message under the same id until it is acknowledged; each refusal must be one that allows that.
pub(super) async fn acknowledged(connection: &mut Connection, session: &str, id: &str, text: &str) -> Result<Frame> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let reply = connection.ask(user_message(session, id, text)).await?;
        if reply.is("ack") {
            return Ok(reply);
        }
        ensure!(reply.at("/retryable") == true && Instant::now() < deadline, "{}", reply.raw);
    }
}

async fn readiness(stack: &Stack, status: u16) -> Result<String> {
    eventually(format!("/readyz of the brain to say {status}"), || async {
        let answer = raw_http::get(stack.brain_ops(), "/readyz").await?;
        ensure!(answer.status == status, "{} {}", answer.status, answer.text());
        Ok(answer.text())
    })
    .await
}

/// `away` makes the server unavailable, `back` makes it available again.
async fn goes_and_comes(
    server: &mut Mongod,
    away: impl AsyncFnOnce(&mut Mongod) -> Result<()>,
    back: impl AsyncFnOnce(&mut Mongod) -> Result<()>,
) -> Result<()> {
    let stack = Stack::builder().store(StoreAt::mongo(server.uri())).start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "before").await?;
    let mut laptop = stack.user("ana")?.device("laptop").connect().await?;
    let mut tablet = stack.user("ana")?.device("tablet").connect().await?;
    readiness(&stack, 200).await?;

    away(server).await?;
    let id = Uuid::new_v4().to_string();
    let message = user_message(&session, &id, "meanwhile");
    let new = json!({ "type": "session_open", "session_id": new_session(), "create": true });
    // On three connections: the requests of one connection are handled one after the other.
    tokio::try_join!(
        refused_in_time(&mut ana, message),
        refused_in_time(&mut laptop, json!({ "type": "session_list" })),
        refused_in_time(&mut tablet, new),
    )?;
    ensure!(!ana.frames.iter().any(|frame| frame.is("ack") && frame.text("/client_msg_id") == id), "acknowledged");
    let body = within_time(Duration::from_secs(10), "/readyz to notice", readiness(&stack, 503)).await??;
    ensure!(body.contains("store"), "the store is not named: {body}");
    let alive = raw_http::get(stack.brain_ops(), "/healthz").await?;
    ensure!(alive.status == 200, "the process itself is well: {}", alive.status);

    back(server).await?;
    readiness(&stack, 200).await?;
    // The same message on the same connection, without a restart.
    let ack = acknowledged(&mut ana, &session, &id, "meanwhile").await?;
    let seq = ack.number("/seq").context("no seq")?;
    ana.answer(&session, seq).await?;
    let again = ana.say_as(&session, &id, "meanwhile").await?;
    ensure!(again.at("/duplicate") == true && again.number("/seq") == Some(seq), "{}", again.raw);
    ana.settle().await?;
    ana.log(&session)?.assert_gapless()?;
    let stored = at_rest::mongo_count(stack.store(), "messages", doc! { "snd": "user" }).await?;
    ensure!(stored == 2, "{stored} user messages in the store");
    Ok(())
}

#[tokio::test]
async fn a_killed_server_comes_back_without_a_restart_of_chatbox() -> Result<()> {
    let mut server = Mongod::start().await?;
    goes_and_comes(
        &mut server,
        async |server| {
            server.kill();
            Ok(())
        },
        async |server| server.restart().await,
    )
    .await
}

#[tokio::test]
async fn a_server_that_hangs_is_not_waited_for() -> Result<()> {
    let mut server = Mongod::start().await?;
    let pid = server.pid().context("no process")?;
    goes_and_comes(&mut server, async |_| signal(pid, Signal::STOP), async |_| signal(pid, Signal::CONT)).await
}

#[tokio::test]
async fn a_locked_file_is_not_waited_for_and_a_message_is_stored_once() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "before").await?;
    ana.settle().await?;

    let locker = rusqlite::Connection::open(stack.database_file())?;
    locker.busy_timeout(Duration::from_secs(5))?;
    locker.execute_batch("BEGIN EXCLUSIVE")?;
    let id = Uuid::new_v4().to_string();
    refused_in_time(&mut ana, user_message(&session, &id, "meanwhile")).await?;
    ensure!(!ana.frames.iter().any(|frame| frame.is("ack") && frame.text("/client_msg_id") == id), "acknowledged");
    locker.execute_batch("ROLLBACK")?;

    let ack = acknowledged(&mut ana, &session, &id, "meanwhile").await?;
    ana.answer(&session, ack.number("/seq").context("no seq")?).await?;
    ana.settle().await?;
    ana.log(&session)?.assert_gapless()?;
    ensure!(ana.log(&session)?.last_seq() == 4, "{} entries", ana.log(&session)?.last_seq());
    let stored = at_rest::sqlite_count(&stack.database_file(), "messages", "snd = 'user'")?;
    ensure!(stored == 2, "{stored} user messages in the store");
    Ok(())
}

#[tokio::test]
async fn a_brain_without_indexes_waits_for_them_and_says_which() -> Result<()> {
    let stack =
        Stack::builder().store(StoreAt::mongodb().await?).brain("store.create_indexes", false)?.launch().await?;
    let body = eventually("/readyz of the brain to name an index", || async {
        let answer = raw_http::get(stack.brain_ops(), "/readyz").await?;
        ensure!(answer.status == 503 && answer.text().contains("index"), "{} {}", answer.status, answer.text());
        Ok(answer.text())
    })
    .await?;
    for collection in ["messages", "sessions"] {
        ensure!(body.contains(collection), "{collection} is not named: {body}");
    }
    let gateway = raw_http::get(stack.gateway_ops(0), "/readyz").await?;
    ensure!(gateway.status == 503, "{} {}", gateway.status, gateway.text());
    let handshake = stack.user("ana")?.response().await?;
    ensure!(handshake.status == 503 && handshake.code() == "unavailable", "{}", handshake.text());

    let migrated = run(&find("brain", Profile::Same)?, &stack.brain_command("migrate")).await?;
    ensure!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    readiness(&stack, 200).await?;
    stack.ready().await?;
    let mut ana = stack.user("ana")?.connect().await?;
    let session = new_session();
    ana.open(&session).await?;
    ana.converse(&session, "hello").await?;
    Ok(())
}
