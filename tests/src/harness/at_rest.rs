//! What the stores really hold, read past the services: documents, rows, the bytes of the files, and the keys that no
//! store may hold.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use memchr::memmem;
use mongodb::Client;
use rusqlite::{Connection as Sqlite, OpenFlags};
use uuid::Uuid;

use super::connection::Connection;
use super::ledger;
use super::stack::Stack;
use super::start::StoreAt;

/// A client of the stack's server, and its database.
///
/// # Errors
/// The stack uses no server, or it cannot be reached.
pub async fn mongo(store: &StoreAt) -> Result<mongodb::Database> {
    let StoreAt::Mongo { uri, database, .. } = store else { bail!("this stack has no MongoDB") };
    Ok(Client::with_uri_str(uri).await?.database(database))
}

/// How many documents match, in a collection of the stack's database.
///
/// # Errors
/// The server cannot be asked.
pub async fn mongo_count(store: &StoreAt, collection: &str, filter: Document) -> Result<u64> {
    Ok(mongo(store).await?.collection::<Document>(collection).count_documents(filter).await?)
}

/// A session's log in the stack's database, in order: seq, rev, id and state of each entry.
///
/// # Errors
/// The server cannot be asked, or an entry lacks one of these.
pub async fn mongo_log(store: &StoreAt, session: &str) -> Result<Vec<(u64, u64, String, String)>> {
    let id = bson::Uuid::from_uuid_1(session.parse::<Uuid>()?);
    let messages = mongo(store).await?.collection::<Document>("messages");
    let mut found = messages.find(doc! { "sid": id }).sort(doc! { "seq": 1 }).await?;
    let mut log = Vec::new();
    while let Some(entry) = found.try_next().await? {
        let number = |field: &str| entry.get_i64(field).context("no number").and_then(|it| Ok(u64::try_from(it)?));
        let Some(Bson::Binary(id)) = entry.get("_id") else { bail!("an entry without id") };
        let id = Uuid::from_slice(&id.bytes)?.to_string();
        log.push((number("seq")?, number("rev")?, id, entry.get_str("st")?.to_owned()));
    }
    Ok(log)
}

/// Checks that a client's log has no gap, nothing is streaming, and the log is the one in the stack's database.
///
/// # Errors
/// They differ, or the server cannot be asked.
pub async fn assert_log_is_stored(stack: &Stack, connection: &Connection, session: &str) -> Result<()> {
    let log = connection.log(session)?;
    log.assert_gapless()?;
    let known: Vec<_> = log
        .entries()
        .map(|(seq, seen)| {
            let text = |field: &str| seen.entry[field].as_str().unwrap_or_default().to_owned();
            (seq, seen.entry["rev"].as_u64().unwrap_or_default(), text("id"), text("state"))
        })
        .collect();
    let stored = mongo_log(stack.store(), session).await?;
    ensure!(known == stored, "the client has {known:?}, the store {stored:?}");
    Ok(())
}

/// The bytes of every document of every collection.
///
/// # Errors
/// The server cannot be asked.
pub async fn mongo_bytes(store: &StoreAt) -> Result<Vec<Vec<u8>>> {
    let database = mongo(store).await?;
    let mut documents = Vec::new();
    for name in database.list_collection_names().await? {
        let mut all = database.collection::<RawDocumentBuf>(&name).find(doc! {}).await?;
        while let Some(document) = all.try_next().await? {
            documents.push(document.into_bytes());
        }
    }
    Ok(documents)
}

/// How many rows match, in a table of the embedded store.
///
/// # Errors
/// The file cannot be read.
pub fn sqlite_count(file: &Path, table: &str, condition: &str) -> Result<i64> {
    let database = Sqlite::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(database.query_row(&format!("SELECT count(*) FROM {table} WHERE {condition}"), [], |row| row.get(0))?)
}

/// The bytes of the database file and of the files beside it, such as the write-ahead log.
///
/// # Errors
/// They cannot be read.
pub fn sqlite_bytes(file: &Path) -> Result<Vec<Vec<u8>>> {
    let folder = file.parent().context("the file is in no folder")?;
    let stem = file.file_name().context("the file has no name")?.to_string_lossy().into_owned();
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&stem) {
            all.push(std::fs::read(entry.path())?);
        }
    }
    Ok(all)
}

/// Looks for `secret` as it is, in hexadecimal of either case, and in base64 of either alphabet.
pub fn contains(haystack: &[u8], secret: &[u8]) -> bool {
    let hex = |upper: bool| -> String {
        secret.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
    };
    let texts = [hex(false), hex(true), STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
    std::iter::once(secret)
        .chain(texts.iter().map(String::as_bytes))
        .any(|needle| memmem::find(haystack, needle).is_some())
}

/// The bytes of the stack's master key.
///
/// # Errors
/// The keyring has another form than `kid:base64`.
pub fn master_key(stack: &Stack) -> Result<Vec<u8>> {
    let (_, key) = stack.keyring().split_once(':').context("a keyring without kid")?;
    Ok(STANDARD.decode(key)?)
}

/// The data keys of all stored sessions, unwrapped as docs/keys.md describes it.
///
/// # Errors
/// A session has no data key, or it does not open under the master key.
pub async fn data_keys(stack: &Stack) -> Result<Vec<Vec<u8>>> {
    let master = master_key(stack)?;
    let mut keys = Vec::new();
    for row in ledger::rows(stack, "sessions").await? {
        let id: Uuid = ledger::text(&row, "_id").context("no _id")?.parse()?;
        let wrapped = match (row.get("dk.w"), row.get("dk")) {
            (Some(Bson::Binary(wrapped)), _) => wrapped.bytes.clone(),
            (_, Some(Bson::Document(key))) => key.get_binary_generic("w")?.clone(),
            _ => bail!("session {id} has no data key"),
        };
        keys.push(unwrap(&master, id, &wrapped)?);
    }
    Ok(keys)
}

fn unwrap(master: &[u8], session: Uuid, wrapped: &[u8]) -> Result<Vec<u8>> {
    let mut place = b"chatbox.v1".to_vec();
    for part in ["sessions", "dk"] {
        place.extend(u64::try_from(part.len())?.to_be_bytes());
        place.extend(part.as_bytes());
    }
    place.extend(session.as_bytes());
    place.extend(0_u64.to_be_bytes());
    let (nonce, sealed) = wrapped.split_at_checked(NONCE_LEN).context("a short blob")?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, master).map_err(|_| anyhow!("no AES-256 key"))?);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| anyhow!("no nonce"))?;
    let mut sealed = sealed.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(place), &mut sealed);
    Ok(plain.map_err(|_| anyhow!("the data key of {session} does not open"))?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let key = [0xfb_u8, 0xef, 0xff, 0x00, 0x10, 0x20];
        for form in ["fbefff001020", "FBEFFF001020", "++//ABAg", "--__ABAg"] {
            assert!(contains(format!("before {form} after").as_bytes(), &key), "{form}");
        }
        assert!(contains(&[&b"before "[..], &key].concat(), &key));
        assert!(!contains(b"before after", &key));
    }
}
