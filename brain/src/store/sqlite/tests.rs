//! What only the embedded store does: its file, its layouts, its groups of writes.

use super::*;
use crate::ledger::UsageSum;
use crate::store::conformance::{answer, ended, message, session_row};
use crate::store::{AnswerVersion, Responses, StoreError};

fn place() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chatbox.db");
    (folder, file)
}

#[tokio::test]
async fn migrating_again_changes_nothing_and_data_outlives_the_store() {
    let (_folder, file) = place();
    let row = session_row("user");
    let store = SqliteStore::open(&file).unwrap();
    store.migrate().await.unwrap();
    store.create_session(&row).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&file).unwrap();
    store.migrate().await.unwrap();
    assert_eq!(store.session(row.id).await.unwrap(), Some(row));
}

/// The tables of layout 1, as the chatbox that had it made them.
const LAYOUT_1: &str = r#"
CREATE TABLE sessions (
    _id BLOB PRIMARY KEY NOT NULL,
    uid TEXT NOT NULL, ep TEXT NOT NULL, nm BLOB, ts INTEGER NOT NULL,
    "dk.kid" TEXT, "dk.w" BLOB, v INTEGER NOT NULL,
    st TEXT NOT NULL, seq INTEGER NOT NULL, lastTs INTEGER NOT NULL, endTs INTEGER,
    msgCnt INTEGER NOT NULL, modelId TEXT NOT NULL, adminAssisted INTEGER NOT NULL, adminId TEXT, adminNm TEXT,
    joinSeq INTEGER NOT NULL, helpReq INTEGER NOT NULL, helpTs INTEGER, readSeq INTEGER NOT NULL,
    tokIn INTEGER NOT NULL, tokOut INTEGER NOT NULL,
    respCnt INTEGER NOT NULL, respSum INTEGER NOT NULL, respMax INTEGER NOT NULL
) STRICT;
CREATE TABLE messages (
    _id BLOB PRIMARY KEY NOT NULL,
    sid BLOB NOT NULL, seq INTEGER NOT NULL, rev INTEGER NOT NULL, ts INTEGER NOT NULL,
    kind TEXT NOT NULL, st TEXT NOT NULL, snd TEXT NOT NULL, uid TEXT, sndNm TEXT, ct BLOB,
    cmid BLOB, need INTEGER,
    re INTEGER, gen INTEGER, rgn INTEGER, modelId TEXT, try INTEGER, idx INTEGER,
    own TEXT, fen INTEGER, exp INTEGER, fin TEXT, err TEXT,
    tokIn INTEGER, tokOut INTEGER, est INTEGER, ftMs INTEGER, ms INTEGER, conv TEXT,
    ev TEXT, evUid TEXT, evNm TEXT, evRsn INTEGER
) STRICT;
CREATE UNIQUE INDEX sid_seq ON messages (sid, seq);
CREATE UNIQUE INDEX sid_uid_cmid ON messages (sid, uid, cmid) WHERE cmid IS NOT NULL;
CREATE UNIQUE INDEX sid_re_gen ON messages (sid, re, gen) WHERE re IS NOT NULL;
CREATE UNIQUE INDEX sid_streaming ON messages (sid) WHERE st = 'streaming';
CREATE INDEX exp_streaming ON messages (exp) WHERE st = 'streaming';
CREATE INDEX sid_seq_need ON messages (sid, seq) WHERE need = 1;
CREATE INDEX ts_need ON messages (ts) WHERE need = 1;
CREATE INDEX uid_lastTs ON sessions (uid, lastTs DESC, _id DESC) WHERE "dk.kid" IS NOT NULL;
CREATE INDEX uid_st_lastTs ON sessions (uid, st, lastTs DESC, _id DESC) WHERE "dk.kid" IS NOT NULL;
PRAGMA user_version = 1;
"#;

/// Inserts the fields a table of layout 1 has.
fn insert(connection: &Connection, table: &str, later: &[&str], fields: &[record::Field<'_>]) {
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).filter(|name| !later.contains(name)).collect();
    let columns: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let places = vec!["?"; names.len()];
    let sql = format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), places.join(", "));
    execute(connection, &sql, parameters(&names, fields)).unwrap();
}

#[tokio::test]
async fn a_file_of_layout_1_is_brought_to_this_one_with_all_that_is_in_it() {
    let (_folder, file) = place();
    let mut row = session_row("user");
    row.usage = UsageSum { calls: 0, input: 70, cached: 0, output: 30, cost: 0 };
    row.responses = Responses { count: 2, ms_sum: 30, ms_max: 20 };
    let entries = [message(row.id, 1), ended(answer(row.id, 2, 1, 0)), answer(row.id, 3, 1, 1)];
    {
        let old = Connection::open(&file).unwrap();
        old.execute_batch(LAYOUT_1).unwrap();
        insert(&old, "sessions", &["calls", "tokCch", "cost"], &record::session::fields(&row).unwrap());
        for entry in &entries {
            insert(&old, "messages", &["rty", "askId", "tokCch"], &record::entry::fields(entry).unwrap());
        }
    }
    let store = SqliteStore::open(&file).unwrap();
    assert_eq!(store.missing_indexes().await.unwrap(), ["layout 4"]);
    for _ in 0..2 {
        store.migrate().await.unwrap();
        assert_eq!(store.missing_indexes().await.unwrap(), Vec::<String>::new());
        assert_eq!(store.session(row.id).await.unwrap().as_ref(), Some(&row));
        assert_eq!(store.entries_after(row.id, 0, 10).await.unwrap(), entries);
    }
    // What is new has its place.
    let [_, _, mut growing] = entries;
    let seen = AnswerVersion::of(&growing.meta).unwrap();
    growing.meta.answer_mut().unwrap().retry_at = Some(Timestamp(9));
    assert!(store.update_answer(&growing, seen).await.unwrap());
    assert_eq!(store.entry(row.id, 3).await.unwrap(), Some(growing));
    let usage = UsageSum { calls: 1, input: 5, cached: 4, output: 3, cost: 2 };
    store.save_session_usage(row.id, &usage).await.unwrap();
    assert_eq!(store.session(row.id).await.unwrap(), Some(SessionRow { usage, ..row }));
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, file) = place();
    let store = SqliteStore::open(&file).unwrap();
    store.migrate().await.unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

#[tokio::test]
async fn a_file_of_a_newer_chatbox_is_refused() {
    let (_folder, file) = place();
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let Err(StoreError::Refused(text)) = SqliteStore::open(&file) else { panic!("it was opened") };
    assert!(text.contains("99") && text.contains("newer"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_no_database_and_a_missing_folder_are_told_apart() {
    let (folder, file) = place();
    std::fs::write(&file, "this is not a database, only some text that is long enough to be read").unwrap();
    assert!(matches!(SqliteStore::open(&file), Err(StoreError::Corrupt(_))));
    let nowhere = folder.path().join("missing").join("chatbox.db");
    assert!(matches!(SqliteStore::open(&nowhere), Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_passes() {
    let (_folder, file) = place();
    let store = SqliteStore::open(&file).unwrap();
    store.migrate().await.unwrap();
    let set_limit = |pages: i64| {
        store.writer.write(move |connection| {
            connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).map_err(from_sqlite)
        })
    };
    set_limit(1).await.unwrap();
    let rows: Vec<_> = (0..200).map(|_| session_row("user")).collect();
    let (mut stored, mut failed) = (Vec::new(), 0);
    let outcomes = futures_util::future::join_all(rows.iter().map(|row| store.create_session(row))).await;
    for (row, outcome) in rows.iter().zip(outcomes) {
        match outcome {
            Ok(true) => stored.push(row),
            Err(StoreError::Unavailable(_)) => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(failed > 0, "200 sessions found room");
    for row in stored {
        assert!(store.session(row.id).await.unwrap().is_some(), "told stored, and it is not");
    }
    set_limit(1_000_000).await.unwrap();
    assert!(store.create_session(&session_row("user")).await.unwrap());
}

#[tokio::test]
async fn a_failed_write_leaves_the_others_of_its_group_alone() {
    let (_folder, file) = place();
    let store = SqliteStore::open(&file).unwrap();
    store.migrate().await.unwrap();
    let rows: Vec<_> = (0..20).map(|_| session_row("user")).collect();
    let writes = rows.iter().enumerate().map(|(index, row)| {
        let values = parameters(record::session::FIELDS, &record::session::fields(row).unwrap());
        store.writer.write(move |connection| {
            execute(connection, queries::CREATE_SESSION, values).map_err(from_sqlite)?;
            if index % 2 == 0 { Ok(()) } else { Err(StoreError::Refused("on purpose".into())) }
        })
    });
    futures_util::future::join_all(writes).await;
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(store.session(row.id).await.unwrap().is_some(), index % 2 == 0, "write {index}");
    }
}

#[tokio::test]
async fn a_second_brain_on_the_file_is_refused_until_the_first_is_gone() {
    let (folder, file) = place();
    let first = SqliteStore::open_exclusive(&file).unwrap();
    let Err(StoreError::Refused(reason)) = SqliteStore::open_exclusive(&file) else { panic!("two stores") };
    assert!(reason.contains("chatbox.db.lock"), "{reason}");
    let other_name = folder.path().join("link.db");
    std::os::unix::fs::symlink(&file, &other_name).unwrap();
    assert!(SqliteStore::open_exclusive(&other_name).is_err(), "the same file by another name");
    SqliteStore::open(&file).unwrap().now().await.unwrap();
    drop(first);
    SqliteStore::open_exclusive(&file).unwrap();
}
