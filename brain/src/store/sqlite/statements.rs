//! How a statement of `queries` is run, and values as its parameters.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};

use super::error::from_sqlite;
use crate::store::StoreResult;
use crate::store::record::signed;

/// Runs a statement that changes rows; returns their number.
pub(super) fn execute(connection: &Connection, sql: &str, parameters: Vec<Sql>) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params_from_iter(parameters))
}

/// Runs a query and reads each row with `read`.
pub(super) fn rows<T>(
    connection: &Connection,
    sql: &str,
    parameters: Vec<Sql>,
    read: impl Fn(&rusqlite::Row<'_>) -> StoreResult<T>,
) -> StoreResult<Vec<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let mut rows = statement.query(params_from_iter(parameters)).map_err(from_sqlite)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// A number as a parameter.
pub(super) fn number(number: u64) -> StoreResult<Sql> {
    signed(number).map(Sql::Integer)
}

/// A text as a parameter.
pub(super) fn text(text: &str) -> Sql {
    Sql::Text(text.to_owned())
}
