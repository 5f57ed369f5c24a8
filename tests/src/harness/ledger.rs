//! The usage ledger in the store, read past the services, and its invariants.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use super::at_rest::mongo;
use super::stack::Stack;
use super::start::StoreAt;
use super::waits::{TIMEOUT, eventually_within};

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The call's id, which the provider received.
    pub id: String,
    /// The user who is charged.
    pub user: String,
    /// The session.
    pub session: String,
    /// `answer` or `name`.
    pub purpose: String,
    /// The answer's place.
    pub seq: i64,
    /// The answer's attempt.
    pub attempt: i64,
    /// The model.
    pub model: String,
    /// The protocol.
    pub provider: String,
    /// Tokens of the prompt.
    pub input: i64,
    /// Of these, from a cache.
    pub cached: i64,
    /// Tokens of the answer.
    pub output: i64,
    /// The numbers are estimates of chatbox.
    pub estimated: bool,
    /// How it ended.
    pub finish: String,
    /// Why it failed.
    pub error: Option<String>,
    /// In billionths.
    pub cost: Option<i64>,
    /// To the first text.
    pub first_token_ms: Option<i64>,
    /// To the end.
    pub total_ms: i64,
    /// The day it counts for.
    pub day: String,
}

/// Sums of a session or a user: calls, input, cached, output, cost.
pub type Sums = [i64; 5];

/// A row of any kind, by the names of its fields.
pub(super) type Row = BTreeMap<String, Bson>;

fn number(row: &Row, name: &str) -> Option<i64> {
    match row.get(name) {
        Some(Bson::Int64(number)) => Some(*number),
        Some(Bson::Int32(number)) => Some((*number).into()),
        _ => None,
    }
}

pub(super) fn text(row: &Row, name: &str) -> Option<String> {
    match row.get(name) {
        Some(Bson::String(text)) => Some(text.clone()),
        Some(Bson::Binary(binary)) => Uuid::from_slice(&binary.bytes).ok().map(|id| id.to_string()),
        _ => None,
    }
}

fn sums(row: &Row) -> Sums {
    ["calls", "tokIn", "tokCch", "tokOut", "cost"].map(|name| number(row, name).unwrap_or(0))
}

impl Record {
    fn of(row: &Row) -> Result<Self> {
        let text = |name: &str| text(row, name).with_context(|| format!("no {name} in {row:?}"));
        Ok(Self {
            id: text("_id")?,
            user: text("uid")?,
            session: text("sid")?,
            purpose: text("purp")?,
            seq: number(row, "seq").unwrap_or(0),
            attempt: number(row, "try").unwrap_or(0),
            model: text("modelId")?,
            provider: text("prov")?,
            input: number(row, "tokIn").context("no tokIn")?,
            cached: number(row, "tokCch").context("no tokCch")?,
            output: number(row, "tokOut").context("no tokOut")?,
            estimated: matches!(row.get("est"), Some(Bson::Boolean(true) | Bson::Int64(1))),
            finish: text("fin")?,
            error: self::text(row, "err"),
            cost: number(row, "cost"),
            first_token_ms: number(row, "ftMs"),
            total_ms: number(row, "ms").context("no ms")?,
            day: text("day")?,
        })
    }

    fn sums(&self) -> Sums {
        [1, self.input, self.cached, self.output, self.cost.unwrap_or(0)]
    }
}

/// All records, by their ids.
///
/// # Errors
/// The store cannot be read.
pub async fn records(stack: &Stack) -> Result<BTreeMap<String, Record>> {
    let rows = rows(stack, "usage").await?;
    rows.iter().map(|row| Record::of(row).map(|record| (record.id.clone(), record))).collect()
}

/// Waits until no reservation is open, and checks all sums: of each session in its document, and of each user and day in
/// their account.
///
/// # Errors
/// The sums are wrong, or a reservation stays open.
pub async fn settled(stack: &Stack) -> Result<BTreeMap<String, Record>> {
    settled_within(stack, TIMEOUT).await
}

/// As [`settled`], with a timeout of one's own.
///
/// # Errors
/// The sums are wrong, or a reservation stays open.
pub async fn settled_within(stack: &Stack, timeout: Duration) -> Result<BTreeMap<String, Record>> {
    eventually_within(timeout, "a ledger whose sums are right", || async {
        let records = records(stack).await?;
        let (mut of_sessions, mut of_days) = (BTreeMap::new(), BTreeMap::new());
        for record in records.values() {
            add(of_sessions.entry(record.session.clone()).or_default(), record.sums());
            add(of_days.entry((record.user.clone(), record.day.clone())).or_default(), record.sums());
        }
        for row in rows(stack, "accounts").await? {
            let key = (text(&row, "uid").context("no uid")?, text(&row, "day").context("no day")?);
            let reserved = (number(&row, "resTok").unwrap_or(0), number(&row, "resCost").unwrap_or(0));
            ensure!(reserved == (0, 0), "{key:?} has {reserved:?} reserved");
            let expected = of_days.remove(&key).unwrap_or_default();
            ensure!(sums(&row) == expected, "the account of {key:?} says {:?}, the ledger {expected:?}", sums(&row));
        }
        ensure!(of_days.is_empty(), "days without an account: {of_days:?}");
        for row in rows(stack, "sessions").await? {
            let id = text(&row, "_id").context("no _id")?;
            let expected = of_sessions.remove(&id).unwrap_or_default();
            ensure!(sums(&row) == expected, "session {id} says {:?}, the ledger {expected:?}", sums(&row));
        }
        ensure!(of_sessions.is_empty(), "no such sessions: {of_sessions:?}");
        Ok(records)
    })
    .await
}

fn add(sum: &mut Sums, more: Sums) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

pub(super) async fn rows(stack: &Stack, name: &str) -> Result<Vec<Row>> {
    match stack.store() {
        StoreAt::Sqlite => sqlite_rows(&stack.database_file(), name),
        StoreAt::Mongo { .. } => {
            let found = mongo(stack.store()).await?.collection::<Document>(name).find(doc! {}).await?;
            Ok(found.map_ok(|document| document.into_iter().collect()).try_collect().await?)
        }
    }
}

fn sqlite_rows(file: &Path, table: &str) -> Result<Vec<Row>> {
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = database.prepare(&format!("SELECT * FROM {table}"))?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let mut read = Row::new();
        for (index, name) in names.iter().enumerate() {
            let value = match row.get_ref(index)? {
                rusqlite::types::ValueRef::Integer(number) => Bson::Int64(number),
                rusqlite::types::ValueRef::Text(text) => Bson::String(String::from_utf8_lossy(text).into_owned()),
                rusqlite::types::ValueRef::Blob(bytes) => {
                    let subtype = bson::spec::BinarySubtype::Generic;
                    Bson::Binary(bson::Binary { subtype, bytes: bytes.to_vec() })
                }
                _ => continue,
            };
            read.insert(name.clone(), value);
        }
        rows.push(read);
    }
    Ok(rows)
}
