//! Data at rest: the stores hold no text of a conversation and no key in the clear, and neither do logs and metrics.

use anyhow::{Result, ensure};
use chatbox_tests::harness::connection::new_session;
use chatbox_tests::harness::start::random_base64;
use chatbox_tests::harness::waits::eventually;
use chatbox_tests::harness::{Stack, StoreAt, at_rest, raw_http};
use chatbox_tests::mongod::Mongod;
use serde_json::json;

const MESSAGE: &str = "canary-spoken-6b1f";
const NAME: &str = "canary-named-93ae";

/// Talks, renames, restarts and reads back. Then looks for texts and keys in the stored bytes, which `stored` reads, and
/// in everything the services wrote until their end.
async fn nothing_in_the_clear(store: StoreAt, stored: impl AsyncFn(&Stack) -> Result<Vec<Vec<u8>>>) -> Result<()> {
    let mut stack = Stack::builder()
        .store(store)
        .brain("log.filter", "debug,chatbox_brain=trace,chatbox_shared=trace")?
        .gateway("log.filter", "debug,chatbox_gateway=trace,chatbox_shared=trace")?
        .start()
        .await?;
    let token = stack.token("ana")?;
    let session = new_session();
    let mut ana = stack.handshake().bearer(&token).connect().await?;
    ana.open(&session).await?;
    let answer = ana.converse(&session, &format!("please repeat {MESSAGE}")).await?;
    ensure!(answer["state"] == "final", "{answer}");
    ana.ask_ok(json!({ "type": "session_rename", "session_id": session, "name": NAME })).await?;
    ana.ask_invalid(json!({ "type": MESSAGE })).await?;
    ana.ask_invalid(json!({ "type": "history", "session_id": session, "before_seq": MESSAGE })).await?;
    ana.settle().await?;
    let mut measured = String::new();
    for ops in [stack.gateway_ops(0), stack.brain_ops()] {
        for path in ["/metrics", "/readyz"] {
            measured.push_str(&raw_http::get(ops, path).await?.text());
        }
    }

    // The text was really stored: another start reads it back.
    stack.restart_brain().await?;
    stack.ready().await?;
    let mut back = stack.user("ana")?.connect().await?;
    let opened = back.open(&session).await?;
    ensure!(opened.at("/session/name") == NAME, "{}", opened.raw);
    ensure!(back.log(&session)?.entry(1).is_some_and(|seen| seen.content.contains(MESSAGE)), "not read back");

    let master = at_rest::master_key(&stack)?;
    let data_keys = at_rest::data_keys(&stack).await?;
    ensure!(data_keys.len() == 1 && data_keys[0].len() == 32, "{} data keys", data_keys.len());
    let secrets = [("a message", MESSAGE.as_bytes()), ("a name", NAME.as_bytes()), ("the master key", &master)];
    let secrets: Vec<_> =
        secrets.into_iter().chain(data_keys.iter().map(|key| ("a data key", key.as_slice()))).collect();
    for (index, part) in stored(&stack).await?.iter().enumerate() {
        for (what, secret) in &secrets {
            ensure!(!at_rest::contains(part, secret), "{what} is in the store (part {index})");
        }
    }
    let written = stack.stop().await? + &measured;
    let of_gateway = [("a token", token.as_bytes()), ("the signing secret", stack.secret().as_bytes())];
    for (what, secret) in secrets.into_iter().chain(of_gateway) {
        ensure!(!at_rest::contains(written.as_bytes(), secret), "{what} is in the log or the metrics");
    }
    Ok(())
}

#[tokio::test]
async fn sqlite_holds_ciphertext_only() -> Result<()> {
    nothing_in_the_clear(StoreAt::Sqlite, async |stack| {
        ensure!(at_rest::sqlite_count(&stack.database_file(), "messages", "ct IS NOT NULL")? == 2, "two ciphertexts");
        at_rest::sqlite_bytes(&stack.database_file())
    })
    .await
}

#[tokio::test]
async fn mongodb_holds_ciphertext_only() -> Result<()> {
    // A server of its own: its files hold this conversation alone.
    let server = Mongod::start().await?;
    nothing_in_the_clear(StoreAt::mongo(server.uri()), async |stack| {
        let with_content = bson::doc! { "ct": { "$exists": true } };
        ensure!(at_rest::mongo_count(stack.store(), "messages", with_content).await? == 2, "two ciphertexts");
        let mut all = at_rest::mongo_bytes(stack.store()).await?;
        ensure!(all.len() >= 3, "a session and two messages, but {} documents", all.len());
        all.extend(files_below(server.data())?);
        Ok(all)
    })
    .await
}

fn files_below(folder: &std::path::Path) -> Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else if path.is_file() {
            files.push(written_part(std::fs::read(path)?));
        }
    }
    Ok(files)
}

/// Without the zeros at the end: MongoDB allocates its journal long before it writes it.
fn written_part(mut file: Vec<u8>) -> Vec<u8> {
    const ZEROS: [u8; 4096] = [0; 4096];
    while file.ends_with(&ZEROS) {
        file.truncate(file.len() - ZEROS.len());
    }
    file
}

#[tokio::test]
async fn a_changed_byte_spoils_its_entry_and_no_other() -> Result<()> {
    let mut stack = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "first").await?;
    ana.converse(&session, "second").await?;
    stack.term_brain().await?;
    let file = rusqlite::Connection::open(stack.database_file())?;
    // One byte flipped at seq 1; the ciphertext of seq 3 moved over that of seq 4.
    let bytes: Vec<u8> = file.query_row("SELECT ct FROM messages WHERE seq = 1", [], |row| row.get(0))?;
    let mut flipped = bytes.clone();
    if let Some(last) = flipped.last_mut() {
        *last ^= 1;
    }
    file.execute("UPDATE messages SET ct = ?1 WHERE seq = 1", [flipped])?;
    file.execute("UPDATE messages SET ct = (SELECT ct FROM messages WHERE seq = 3) WHERE seq = 4", [])?;
    drop(file);
    stack.start_brain().await?;
    stack.ready().await?;

    let mut back = stack.user("ana")?.connect().await?;
    back.open(&session).await?;
    for (seq, spoiled) in [(1, true), (2, false), (3, false), (4, true)] {
        let known = ana.log(&session)?.entry(seq).map(|seen| seen.content.clone()).unwrap_or_default();
        let entry = back.log(&session)?.entry(seq).map(|seen| seen.entry.clone()).unwrap_or_default();
        ensure!(entry["error"].is_object() == spoiled, "entry {seq}: {entry}");
        ensure!(entry["content"] == if spoiled { json!("") } else { json!(known) }, "entry {seq}: {entry}");
    }
    named(&stack, &session).await?;
    Ok(())
}

/// Waits until the log names the session: the output of a process is read asynchronously.
async fn named(stack: &Stack, session: &str) -> Result<()> {
    eventually("the session in the log", || async {
        ensure!(stack.output().contains(session), "the log does not name the session");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn another_key_under_the_same_kid_is_an_error_and_never_garbage() -> Result<()> {
    let first = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = first.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "hello").await?;
    ana.settle().await?;
    let copy = tempfile::tempdir()?;
    for entry in std::fs::read_dir(first.folder())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("chatbox.db") {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
        }
    }
    let with_another_key =
        || Stack::builder().keyring(format!("k1:{}", random_base64())).database(copy.path().join("chatbox.db"));
    let mut refusing = with_another_key().launch().await?;
    eventually("/readyz of the brain to name the kid", || async {
        let answer = raw_http::get(refusing.brain_ops(), "/readyz").await?;
        let names = answer.text().contains("other keys than those in keys.keyring: k1;");
        ensure!(answer.status == 503 && names, "{} {}", answer.status, answer.text());
        Ok(())
    })
    .await?;
    // The embedded store belongs to one brain at a time.
    refusing.kill_brain().await?;

    let second = with_another_key().brain("keys.allow_missing", true)?.start().await?;
    let mut back = second.user("ana")?.connect().await?;
    let reply = back.ask(json!({ "type": "session_open", "session_id": session })).await?;
    ensure!(reply.is("error") && reply.text("/code") == "internal", "{}", reply.raw);
    named(&second, &session).await?;
    // Other sessions work, also in the same list.
    back.open(&new_session()).await?;
    let list = back.ask_ok(json!({ "type": "session_list" })).await?;
    ensure!(list.at("/sessions").as_array().is_some_and(|all| !all.is_empty()), "{}", list.raw);
    Ok(())
}
