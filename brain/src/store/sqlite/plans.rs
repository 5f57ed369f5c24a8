//! Asks SQLite how it would run every statement of the store: each must search an index, none may scan or sort.

use rusqlite::Connection;

use super::{queries, rows, schema};
use crate::store::record;

#[test]
fn every_statement_searches_an_index_and_sorts_nothing() {
    let connection = Connection::open_in_memory().unwrap();
    schema::migrate(&connection).unwrap();
    for (name, sql) in queries::ALL {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let count = statement.parameter_count();
        let parameters = rusqlite::params_from_iter(vec![rusqlite::types::Null; count]);
        let steps: Vec<String> =
            statement.query_map(parameters, |row| row.get("detail")).unwrap().collect::<Result<_, _>>().unwrap();
        for step in &steps {
            assert!(!step.contains("SCAN") && !step.contains("TEMP B-TREE"), "{name}: {steps:#?}");
        }
        assert!(sql.starts_with("INSERT") || steps.iter().any(|step| step.contains("SEARCH")), "{name}: {steps:#?}");
    }
}

#[test]
fn pages_begin_at_their_cursor() {
    let connection = Connection::open_in_memory().unwrap();
    schema::migrate(&connection).unwrap();
    for (sql, expected) in [
        (queries::LIST_ALL, "USING INDEX uid_lastTs (uid=? AND (lastTs,_id)<(?,?))"),
        (queries::LIST_STATE, "USING INDEX uid_st_lastTs (uid=? AND st=? AND (lastTs,_id)<(?,?))"),
        (queries::KEY_AFTER, "USING INDEX kid (dk.kid>?)"),
        (queries::ENTRIES_AFTER, "USING INDEX sid_seq (sid=? AND seq>?)"),
        (queries::STREAMING_ANSWER, "USING INDEX sid_streaming (sid=?)"),
        (queries::EXPIRED_ANSWERS, "USING INDEX exp_id_streaming ((exp,_id)>(?,?) AND exp<?)"),
        (queries::UNANSWERED_BETWEEN, "USING INDEX ts_need (ts>? AND ts<?)"),
        (queries::NEXT_UNANSWERED, "USING INDEX sid_seq_need (sid=?)"),
        (queries::LATEST_ANSWER, "USING INDEX sid_re_gen (sid=? AND re=?)"),
        (queries::SUM_OF_SESSION, "USING INDEX sid (sid=?)"),
        (queries::ACCOUNTS_FROM, "(uid=? AND day>?)"),
        (queries::OPEN_RESERVATIONS, "USING INDEX uid_exp (uid=?)"),
        (queries::EXPIRED_RESERVATIONS, "USING INDEX exp (exp<?)"),
    ] {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = rusqlite::params_from_iter(vec![rusqlite::types::Null; statement.parameter_count()]);
        let step: String = statement.query_row(parameters, |row| row.get("detail")).unwrap();
        assert!(step.contains(expected), "{sql}: {step}");
    }
}

/// Rows are read by position: the columns a statement names, and the fields the record knows, are one list.
#[test]
fn columns_stand_in_the_order_of_the_fields() {
    let connection = Connection::open_in_memory().unwrap();
    schema::migrate(&connection).unwrap();
    for (sql, fields) in [
        (queries::ENTRY, record::entry::FIELDS),
        (queries::SESSION, record::session::FIELDS),
        (queries::KEY_AFTER, record::session::WRAPPED_KEY),
        (queries::RECORD_OF, record::usage::FIELDS),
        (queries::SUM_OF_SESSION, record::usage::SUM),
        (queries::ACCOUNT, record::usage::ACCOUNT),
        (queries::OPEN_RESERVATIONS, rows::RESERVATION),
    ] {
        let statement = connection.prepare(sql).unwrap();
        assert_eq!(statement.column_names().collect::<Vec<_>>(), fields);
    }
    for (sql, fields) in [
        (queries::APPEND, record::entry::FIELDS),
        (queries::CREATE_SESSION, record::session::FIELDS),
        (queries::RECORD, record::usage::FIELDS),
        (queries::OPEN_RESERVATION, rows::RESERVATION),
    ] {
        assert_eq!(connection.prepare(sql).unwrap().parameter_count(), fields.len());
    }
    assert_eq!(rows::RESERVATION[2..], *record::usage::RESERVATION);
    for (sql, fields, other) in [
        (queries::UPDATE_ANSWER, record::entry::CHANGING, 5),
        (queries::SAVE_SUMMARY, record::session::SUMMARY, 1),
        (queries::SAVE_USAGE, record::usage::SUM, 1),
    ] {
        assert_eq!(connection.prepare(sql).unwrap().parameter_count(), fields.len() + other);
        for (index, field) in fields.iter().enumerate() {
            let set = format!("{field} = ?{}", index + other + 1);
            assert!(sql.contains(&format!(" {set},")) || sql.contains(&format!(" {set} ")), "{set} is not in {sql}");
        }
    }
}
