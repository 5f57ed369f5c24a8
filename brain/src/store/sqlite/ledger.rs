//! The ledger in the embedded store. A reservation and a record are each one job of the writer thread and so one
//! transaction.

use chatbox_shared::ids::SessionId;
use rusqlite::Connection;
use rusqlite::types::Value as Sql;

use super::error::from_sqlite;
use super::queries;
use super::rows::{self, id_to_sql, parameters};
use super::statements::{self, execute, number, text};
use crate::ledger::{Allowance, DayUsage, Reservation, UsageRecord, UsageSum};
use crate::store::record::Value;
use crate::store::{StoreError, StoreResult, record};

/// Reserves, where the allowance has room. A settled call is not reserved again.
pub(super) fn reserve(connection: &Connection, reservation: &Reservation, allowance: &Allowance) -> StoreResult<bool> {
    let (id, user) = (id_to_sql(reservation.call.id.0), &reservation.call.user);
    let is_open = one(connection, queries::IS_OPEN, vec![id.clone()], |_| Ok(()))?.is_some();
    if is_open || one(connection, queries::RECORD_OF, vec![id], |_| Ok(()))?.is_some() {
        return Ok(true);
    }
    let day = reservation.call.day();
    let day_text = day.to_string();
    let account = one(connection, queries::ACCOUNT, vec![text(user.as_str()), text(&day_text)], rows::read_account)?;
    if !allowance.admits(&account.unwrap_or(DayUsage::unused(day)), reservation) {
        return Ok(false);
    }
    let amounts = vec![text(user.as_str()), text(&day_text), number(reservation.tokens)?, number(reservation.cost)?];
    execute(connection, queries::RESERVE, amounts).map_err(from_sqlite)?;
    let mut fields = record::usage::reservation_fields(reservation)?;
    fields.extend([("uid", Value::Text(user.as_str())), ("day", Value::Text(&day_text))]);
    execute(connection, queries::OPEN_RESERVATION, parameters(rows::RESERVATION, &fields)).map_err(from_sqlite)?;
    Ok(true)
}

/// Inserts the record unless the call has one, and settles the call's open reservation.
pub(super) fn record(connection: &Connection, record: &UsageRecord) -> StoreResult<UsageRecord> {
    let day = record.call.day().to_string();
    let values = parameters(record::usage::FIELDS, &record::usage::fields(record, &day)?);
    execute(connection, queries::RECORD, values).map_err(from_sqlite)?;
    let id = id_to_sql(record.call.id.0);
    let first = one(connection, queries::RECORD_OF, vec![id.clone()], rows::read_record)?;
    let first = first.ok_or_else(|| StoreError::Corrupt("a record is missing after its insertion".into()))?;
    if let Some(mut values) = one(connection, queries::CLOSE_RESERVATION, vec![id], columns::<4>)? {
        values.extend(parameters(record::usage::SUM, &record::usage::sum_fields(&UsageSum::of(&first))?));
        execute(connection, queries::SETTLE, values).map_err(from_sqlite)?;
    }
    Ok(first)
}

/// The sum of a session's records.
pub(super) fn sum(connection: &Connection, session: SessionId) -> StoreResult<UsageSum> {
    let sum = one(connection, queries::SUM_OF_SESSION, vec![id_to_sql(session.0)], rows::read_sum)?;
    Ok(sum.unwrap_or_default())
}

fn one<T>(
    connection: &Connection,
    sql: &str,
    parameters: Vec<Sql>,
    read: impl Fn(&rusqlite::Row<'_>) -> StoreResult<T>,
) -> StoreResult<Option<T>> {
    Ok(statements::rows(connection, sql, parameters, read)?.pop())
}

/// The first columns of a row, as parameters of another statement.
fn columns<const COUNT: usize>(row: &rusqlite::Row<'_>) -> StoreResult<Vec<Sql>> {
    (0..COUNT).map(|place| row.get(place).map_err(from_sqlite)).collect()
}
