//! What the stores really hold, read past the services: documents, rows, and the bytes of the files.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bson::{Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::Client;
use rusqlite::{Connection, OpenFlags};

use super::start::StoreAt;

/// A client of the server a stack uses, and its database.
///
/// # Errors
/// The stack uses no server, or it cannot be reached.
pub async fn mongo(store: &StoreAt) -> Result<mongodb::Database> {
    let StoreAt::Mongo { uri, database } = store else { bail!("this stack has no MongoDB") };
    Ok(Client::with_uri_str(uri).await?.database(database))
}

/// How many documents match, in a collection of the stack's database.
///
/// # Errors
/// The server cannot be asked.
pub async fn mongo_count(store: &StoreAt, collection: &str, filter: Document) -> Result<u64> {
    Ok(mongo(store).await?.collection::<Document>(collection).count_documents(filter).await?)
}

/// What the stack's database holds of a session's log, in order: seq, rev, id and state of each entry.
///
/// # Errors
/// The server cannot be asked, or an entry is not what it should be.
pub async fn mongo_log(store: &StoreAt, session: &str) -> Result<Vec<(u64, u64, String, String)>> {
    let id = bson::Uuid::from_uuid_1(session.parse::<uuid::Uuid>()?);
    let messages = mongo(store).await?.collection::<Document>("messages");
    let mut found = messages.find(doc! { "sid": id }).sort(doc! { "seq": 1 }).await?;
    let mut log = Vec::new();
    while let Some(entry) = found.try_next().await? {
        let number = |field: &str| entry.get_i64(field).context("no number").and_then(|it| Ok(u64::try_from(it)?));
        let Some(bson::Bson::Binary(id)) = entry.get("_id") else { bail!("an entry without id") };
        let id = uuid::Uuid::from_slice(&id.bytes)?.to_string();
        log.push((number("seq")?, number("rev")?, id, entry.get_str("st")?.to_owned()));
    }
    Ok(log)
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
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(database.query_row(&format!("SELECT count(*) FROM {table} WHERE {condition}"), [], |row| row.get(0))?)
}

/// The bytes of the database file and what stands beside it (the write-ahead log).
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

/// Does `needle` stand anywhere in these bytes, as it is or as hex?
pub fn contains(haystack: &[u8], needle: &str) -> bool {
    let hex: String = needle.bytes().map(|byte| format!("{byte:02x}")).collect();
    [needle, &hex].iter().any(|text| find(haystack, text.as_bytes()))
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
