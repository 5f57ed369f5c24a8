//! Conversion between rows and SQLite's types: ids are 16-byte blobs, times whole milliseconds, absent fields NULL.

use chatbox_shared::ids::SessionId;
use rusqlite::Row;
use rusqlite::types::{Value as Sql, ValueRef};
use uuid::Uuid;

use super::error::from_sqlite;
use crate::ledger::{DayUsage, Reservation, UsageRecord, UsageSum};
use crate::store::pages::{LeasedRow, ListedRow};
use crate::store::record::{self, Field, Source, Value};
use crate::store::unreadable::UnreadableRows;
use crate::store::{EntryRow, SessionRow, StoreError, StoreResult, WrappedKey};

/// The values of the fields `names`, in order, as parameters of a statement; NULL for those absent in `fields`.
pub(super) fn parameters(names: &[&str], fields: &[Field<'_>]) -> Vec<Sql> {
    let mut values = vec![Sql::Null; names.len()];
    for (name, value) in fields {
        if let Some(place) = names.iter().position(|known| known == name) {
            values[place] = to_sql(*value);
        }
    }
    values
}

fn to_sql(value: Value<'_>) -> Sql {
    match value {
        Value::Absent => Sql::Null,
        Value::Id(id) => id_to_sql(id),
        Value::Int(number) | Value::Time(number) => Sql::Integer(number),
        Value::Bool(set) => Sql::Integer(i64::from(set)),
        Value::Text(text) => Sql::Text(text.to_owned()),
        Value::Bytes(bytes) => Sql::Blob(bytes.to_vec()),
    }
}

/// An id as a parameter.
pub(super) fn id_to_sql(id: Uuid) -> Sql {
    Sql::Blob(id.as_bytes().to_vec())
}

/// The entry in a row that holds the columns of [`record::entry::FIELDS`] in their order, or its placeholder.
pub(super) fn read_entry_or_replace(row: &Row<'_>, unreadable: &UnreadableRows) -> StoreResult<Option<EntryRow>> {
    record::entry::read_or_replace(&Columns { row, names: record::entry::FIELDS }, unreadable)
}

/// The streaming answer in a row that holds the columns of [`record::entry::FIELDS`] in their order, and its place.
pub(super) fn read_leased_entry(row: &Row<'_>, unreadable: &UnreadableRows) -> StoreResult<LeasedRow> {
    let columns = Columns { row, names: record::entry::FIELDS };
    Ok((record::entry::read_lease(&columns), record::entry::read_or_skip(&columns, unreadable)?))
}

/// The session in a row that holds the columns of [`record::session::FIELDS`] in their order, and its place in a list.
pub(super) fn read_listed_session(row: &Row<'_>, unreadable: &UnreadableRows) -> StoreResult<ListedRow> {
    record::session::read_listed(&Columns { row, names: record::session::FIELDS }, unreadable)
}

/// The session in a row that holds the columns of [`record::session::FIELDS`] in their order.
pub(super) fn read_session(row: &Row<'_>) -> StoreResult<SessionRow> {
    record::session::read(&Columns { row, names: record::session::FIELDS })
}

/// The session and its wrapped data key in a row that holds the columns of [`record::session::WRAPPED_KEY`] in their order.
pub(super) fn read_wrapped_key(row: &Row<'_>) -> StoreResult<(SessionId, WrappedKey)> {
    record::session::read_wrapped_key(&Columns { row, names: record::session::WRAPPED_KEY })
}

/// The record in a row that holds the columns of [`record::usage::FIELDS`] in their order.
pub(super) fn read_record(row: &Row<'_>) -> StoreResult<UsageRecord> {
    record::usage::read(&Columns { row, names: record::usage::FIELDS })
}

/// The account in a row that holds the columns of [`record::usage::ACCOUNT`] in their order.
pub(super) fn read_account(row: &Row<'_>) -> StoreResult<DayUsage> {
    record::usage::read_account(&Columns { row, names: record::usage::ACCOUNT })
}

/// The sum in a row that holds the columns of [`record::usage::SUM`] in their order.
pub(super) fn read_sum(row: &Row<'_>) -> StoreResult<UsageSum> {
    record::usage::read_sum(&Columns { row, names: record::usage::SUM })
}

/// The columns of a reservation: whose account it is in, and [`record::usage::RESERVATION`] in its order.
pub(super) const RESERVATION: &[&str] =
    &["uid", "day", "id", "sid", "purp", "seq", "try", "modelId", "prov", "ts", "tok", "cost", "in", "exp"];

/// The reservation in a row that holds the columns of [`RESERVATION`] in their order.
pub(super) fn read_reservation(row: &Row<'_>) -> StoreResult<Reservation> {
    let columns = Columns { row, names: RESERVATION };
    record::usage::read_reservation(&columns, record::usage::read_user(&columns)?)
}

struct Columns<'a> {
    row: &'a Row<'a>,
    names: &'static [&'static str],
}

impl Columns<'_> {
    fn get<T>(&self, name: &'static str, read: impl FnOnce(ValueRef<'_>) -> Option<T>) -> StoreResult<Option<T>> {
        let place = self.names.iter().position(|known| *known == name);
        let place = place.ok_or_else(|| StoreError::Refused(format!("the query lacks the column {name}")))?;
        match self.row.get_ref(place).map_err(from_sqlite)? {
            ValueRef::Null => Ok(None),
            value => read(value)
                .map(Some)
                .ok_or_else(|| StoreError::Corrupt(format!("the column {name} has the wrong type"))),
        }
    }
}

impl Source for Columns<'_> {
    fn id(&self, name: &'static str) -> StoreResult<Option<Uuid>> {
        self.get(name, |value| value.as_blob().ok().and_then(|bytes| Uuid::from_slice(bytes).ok()))
    }

    fn int(&self, name: &'static str) -> StoreResult<Option<i64>> {
        self.get(name, |value| value.as_i64().ok())
    }

    fn bool(&self, name: &'static str) -> StoreResult<Option<bool>> {
        self.get(name, |value| value.as_i64().ok().map(|number| number != 0))
    }

    fn time(&self, name: &'static str) -> StoreResult<Option<i64>> {
        self.int(name)
    }

    fn text(&self, name: &'static str) -> StoreResult<Option<String>> {
        self.get(name, |value| value.as_str().ok().map(str::to_owned))
    }

    fn bytes(&self, name: &'static str) -> StoreResult<Option<Vec<u8>>> {
        self.get(name, |value| value.as_blob().ok().map(<[u8]>::to_vec))
    }
}
