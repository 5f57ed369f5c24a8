//! Asks a real server how it runs every query of the store over a few thousand documents: each must enter an index at
//! the right place; none may scan a collection or sort in memory.

use bson::{Bson, Document, doc};
use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{CallId, ClientMessageId, MessageId, SessionId, UserId};
use chatbox_tests::mongod::Mongod;

use super::documents::{document, time_to_bson};
use super::ledger::summing;
use super::queries::{ACCOUNTS, MESSAGES, Query, SESSIONS, USAGE};
use super::{MongoOptions, MongoStore, indexes};
use crate::ledger::{Allowance, CallFinish, Reservation};
use crate::log::entry::Body;
use crate::store::conformance::{answer, call, ended, message, mongo, mongo_options, session_row, summary};
use crate::store::{
    AnswerVersion, EntryRow, LeaseCursor, SessionCursor, SessionRow, StateFilter, Store, StoreError, record,
};

/// How many documents a page has here.
const LIMIT: i64 = 20;

/// A few thousand documents: 3,000 sessions, most of them of one user, and 4,000 entries, half of them in one log.
async fn fill(store: &MongoStore) -> (SessionRow, EntryRow, EntryRow) {
    let mut sessions: Vec<_> = (0..3_000_i64)
        .map(|n| {
            let mut row = session_row(if n % 3 == 0 { "other" } else { "user" });
            row.summary = summary(5, n / 2);
            row.summary.ended_at = (n % 2 == 0).then_some(Timestamp(n));
            row
        })
        .collect();
    let documents: Vec<_> = sessions.iter().map(|row| document(&record::session::fields(row).unwrap())).collect();
    store.collection(SESSIONS).insert_many(documents).await.unwrap();

    let long = sessions[1].id;
    let mut entries = Vec::new();
    for seq in (1..=2_000).step_by(2) {
        entries.extend([message(long, seq), ended(answer(long, seq + 1, seq, 0))]);
    }
    for seq in 0..1_000 {
        let session = SessionId::generate();
        let mut growing = answer(session, 2, 1, 0);
        growing.meta.answer_mut().unwrap().lease_until = Timestamp(seq);
        entries.extend([message(session, 1), growing]);
    }
    let documents: Vec<_> = entries.iter().map(|row| document(&record::entry::fields(row).unwrap())).collect();
    store.collection(MESSAGES).insert_many(documents).await.unwrap();
    (sessions.swap_remove(1_500), entries[500].clone(), entries[2_501].clone())
}

/// A thousand accounts, half of them of one user and some of them with open reservations, and a thousand records, half of
/// them of one session.
async fn fill_ledger(store: &MongoStore) -> Reservation {
    let accounts: Vec<_> = (0..1_000_i64).map(|n| reservation(if n % 2 == 0 { "user" } else { "other" }, n)).collect();
    let mut documents = Vec::new();
    for (reservation, n) in accounts.iter().zip(0..) {
        let call = &reservation.call;
        let mut account = doc! { "uid": call.user.as_str(), "day": call.day().to_string(), "calls": 1_i64 };
        account.extend(doc! { "tokIn": 1_i64, "tokCch": 0_i64, "tokOut": 1_i64, "cost": 1_i64, "resTok": 0_i64 });
        account.extend(doc! { "resCost": 0_i64, "open": [] });
        if n % 10 < 2 {
            account.insert("open", [document(&record::usage::reservation_fields(reservation).unwrap())]);
            account.insert("exp", time_to_bson(reservation.expires_at.0));
        }
        documents.push(account);
    }
    store.collection(ACCOUNTS).insert_many(documents).await.unwrap();
    let session = accounts[100].call.session;
    let records = accounts.iter().zip(0..).map(|(reservation, n)| {
        let mut record = reservation.lost(5, CallFinish::Lost, None, Timestamp(0));
        if n % 2 == 0 {
            record.call.session = session;
        }
        let day = record.call.day().to_string();
        document(&record::usage::fields(&record, &day).unwrap())
    });
    store.collection(USAGE).insert_many(records).await.unwrap();
    accounts[100].clone()
}

/// On the `day`th day of all.
fn reservation(user: &str, day: i64) -> Reservation {
    let call = call(user, Timestamp(day * 86_400_000));
    Reservation { call, tokens: 10, cost: 10, input_estimate: 5, expires_at: Timestamp(day * 1_000) }
}

/// One of each, with the number of documents it may look at.
fn queries<'a>(
    user: &'a UserId,
    session: &SessionRow,
    message: &EntryRow,
    growing: &EntryRow,
    open: &'a Reservation,
) -> Vec<(Query<'a>, i64)> {
    let after = Some(SessionCursor { last_at: session.summary.last_at, id: session.id });
    let (long, seq) = (message.meta.session, message.meta.seq);
    let Body::Message { client_msg_id, .. } = message.meta.body else { panic!("a message") };
    let lease_until = growing.meta.answer().map_or(Timestamp(0), |answer| answer.lease_until);
    let lease = LeaseCursor { lease_until, id: growing.meta.id };
    // At a cursor, those of the same time are looked at too: two in this data.
    let page = LIMIT + 2;
    let mut all = vec![
        (Query::Session(session.id), 1),
        (Query::Kept(session.id), 1),
        (Query::KeyAfter(""), LIMIT),
        (Query::KeyAfter("k1"), 0),
        (Query::Named(session.id, &[1, 2, 3]), 1),
        (Query::SummaryBefore(session.id, 100), 1),
        (Query::ReadBefore(session.id, 100), 1),
        (Query::Log(long), LIMIT),
        (Query::LogUpTo(long, seq), LIMIT),
        (Query::LogAfter(long, seq), LIMIT),
        (Query::LogBefore(long, seq), LIMIT),
        (Query::Entry(long, seq), 1),
        (Query::EntryWithId(long, seq, message.meta.id), 1),
        (Query::EntryWithId(long, seq, MessageId::generate()), 1),
        (Query::ByClientId(long, user, client_msg_id), 1),
        (Query::ByClientId(long, user, ClientMessageId::generate()), 0),
        (Query::Streaming(growing.meta.session), 1),
        (Query::Streaming(long), 0),
        (Query::Version(growing.meta.session, growing.meta.seq, AnswerVersion::of(&growing.meta).unwrap()), 1),
        (Query::AnswersTo(long, seq), LIMIT),
        (Query::Unanswered(long), LIMIT),
        (Query::Expired(Timestamp(500), None), LIMIT),
        (Query::Expired(Timestamp(i64::MAX), Some(lease)), LIMIT + 2),
        (Query::UnansweredBetween(Timestamp(0), Timestamp(100_000)), LIMIT),
        (Query::UsageUpTo(session.id, 100), 1),
    ];
    let call = &open.call;
    all.extend([
        (Query::Record(call.session, call.id), 1),
        (Query::RecordsOf(call.session), LIMIT),
        (Query::Account(user, call.day()), 1),
        (Query::Room(open, &Allowance { tokens: None, cost: None }), 1),
        (Query::Room(open, &Allowance { tokens: Some(100), cost: Some(100) }), 1),
        (Query::Open(user, call.day(), call.id), 1),
        (Query::Open(user, call.day(), CallId::generate()), 1),
        (Query::AccountsFrom(user, call.day()), LIMIT),
        (Query::OpenOf(user), LIMIT),
        (Query::OpenExpired(Timestamp(500_000)), LIMIT),
    ]);
    for filter in [StateFilter::Any, StateFilter::Active, StateFilter::Ended] {
        all.extend([(Query::List(user, filter, None), page), (Query::List(user, filter, after), page)]);
    }
    all
}

/// Which sort of query it is. A new one does not compile until it is named here, and fails until it has an example.
fn kind(query: &Query<'_>) -> usize {
    match query {
        Query::Session(_) => 0,
        Query::Kept(_) => 1,
        Query::SummaryBefore(..) => 2,
        Query::ReadBefore(..) => 3,
        Query::List(..) => 4,
        Query::Log(_) => 5,
        Query::LogUpTo(..) => 6,
        Query::LogAfter(..) => 7,
        Query::LogBefore(..) => 8,
        Query::Entry(..) => 9,
        Query::EntryWithId(..) => 10,
        Query::ByClientId(..) => 11,
        Query::Streaming(_) => 12,
        Query::Version(..) => 13,
        Query::AnswersTo(..) => 14,
        Query::Unanswered(_) => 15,
        Query::Expired(..) => 16,
        Query::UnansweredBetween(..) => 17,
        Query::UsageUpTo(..) => 18,
        Query::Record(..) => 19,
        Query::RecordsOf(_) => 20,
        Query::Account(..) => 21,
        Query::Room(..) => 22,
        Query::Open(..) => 23,
        Query::AccountsFrom(..) => 24,
        Query::OpenOf(_) => 25,
        Query::OpenExpired(_) => 26,
        Query::Named(..) => 27,
        Query::KeyAfter(_) => 28,
    }
}

const KINDS: usize = 29;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_enters_an_index() {
    let server = Mongod::start().await.unwrap();
    let store = mongo(&server, "plans").await;
    let (session, message, growing) = fill(&store).await;
    let open = fill_ledger(&store).await;
    let user = UserId::new("user");
    let queries = queries(&user, &session, &message, &growing, &open);
    for wanted in 0..KINDS {
        assert!(queries.iter().any(|(query, _)| kind(query) == wanted), "no example of query {wanted}");
    }
    for (query, allowed) in queries {
        let mut find = doc! { "find": query.collection(), "filter": query.filter().unwrap(), "limit": LIMIT };
        if let Some(sort) = query.sort() {
            find.insert("sort", sort);
        }
        let explain = doc! { "explain": find, "verbosity": "executionStats" };
        let answer = store.connection.database.run_command(explain).await.unwrap();
        check(&format!("{query:?}"), &answer, allowed);
    }

    // The sum of a session's records is the one question that is no find. It looks at those records and no others.
    let pipeline = summing(Query::RecordsOf(open.call.session)).unwrap();
    let sum = doc! { "aggregate": USAGE, "pipeline": pipeline, "cursor": {} };
    let explain = doc! { "explain": sum, "verbosity": "executionStats" };
    let answer = store.connection.database.run_command(explain).await.unwrap();
    let first =
        answer.get_array("stages").ok().and_then(|stages| stages[0].as_document()?.get_document("$cursor").ok());
    check("the sum of a session's records", first.unwrap_or(&answer), 500);
}

fn check(name: &str, answer: &Document, allowed: i64) {
    let stats = answer.get_document("executionStats").unwrap();
    let mut stages = Vec::new();
    collect_stages(stats.get("executionStages").unwrap(), &mut stages);
    let forbidden = |stage: &String| matches!(stage.as_str(), "COLLSCAN" | "SORT");
    assert!(!stages.is_empty() && !stages.iter().any(forbidden), "{name}: {stages:?}");
    let number = |key| stats.get(key).and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from))).unwrap();
    let (keys, documents) = (number("totalKeysExamined"), number("totalDocsExamined"));
    // One key more may be read to see the end of a range.
    assert!(documents <= allowed && keys <= allowed + 2, "{name}: {keys} keys, {documents} documents, {stages:?}");
}

fn collect_stages(value: &Bson, stages: &mut Vec<String>) {
    match value {
        Bson::Document(document) => {
            stages.extend(document.get_str("stage").ok().map(str::to_owned));
            document.values().for_each(|value| collect_stages(value, stages));
        }
        Bson::Array(values) => values.iter().for_each(|value| collect_stages(value, stages)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_index_is_named_and_a_lost_server_is_unavailable() {
    let mut server = Mongod::start().await.unwrap();
    let options = MongoOptions { timeout: std::time::Duration::from_secs(2), ..mongo_options(&server, "missing") };
    let store = MongoStore::connect(options).await.unwrap();
    assert_eq!(store.missing_indexes().await.unwrap().len(), indexes::declared().len());
    store.migrate().await.unwrap();
    assert_eq!(store.missing_indexes().await.unwrap(), Vec::<String>::new());
    store.collection(MESSAGES).drop_index(indexes::SID_STREAMING).await.unwrap();
    assert_eq!(store.missing_indexes().await.unwrap(), ["messages.sid_streaming"]);
    store.migrate().await.unwrap();
    assert_eq!(store.missing_indexes().await.unwrap(), Vec::<String>::new());

    let row = session_row("user");
    assert!(store.create_session(&row).await.unwrap());
    server.kill();
    assert!(matches!(store.now().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.append(&message(row.id, 1)).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.session(row.id).await, Err(StoreError::Unavailable(_))));
    server.restart().await.unwrap();
    // The driver finds it again within its heartbeat; until then every answer is a retryable one.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let found = loop {
        match store.session(row.id).await {
            Ok(found) => break found,
            Err(StoreError::Unavailable(_)) if std::time::Instant::now() < deadline => {}
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(found, Some(row));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_server_is_refused_unless_it_is_allowed() {
    let server = Mongod::standalone().await.unwrap();
    let strict = MongoStore::connect(mongo_options(&server, "standalone")).await.unwrap();
    for refused in [strict.migrate().await.err(), strict.now().await.err(), strict.missing_indexes().await.err()] {
        assert!(matches!(&refused, Some(StoreError::Refused(text)) if text.contains("standalone")), "{refused:?}");
    }
    let lax = MongoOptions { allow_standalone: true, ..mongo_options(&server, "standalone") };
    let store = MongoStore::connect(lax).await.unwrap();
    store.migrate().await.unwrap();
    let row = session_row("user");
    assert!(store.create_session(&row).await.unwrap());
    assert!(!store.create_session(&row).await.unwrap());
    assert_eq!(store.session(row.id).await.unwrap(), Some(row));
}

#[tokio::test]
async fn a_connection_string_that_cannot_be_read_is_not_quoted() {
    for uri in ["mongodb://user:hunter2@@host/", "postgres://user:hunter2@host/", "mongodb://u:hunter2@h:port/", ""] {
        let options = MongoOptions {
            uri: uri.to_owned().into(),
            database: "x".into(),
            max_pool_size: 1,
            allow_standalone: false,
            timeout: std::time::Duration::from_secs(1),
        };
        assert!(!format!("{options:?}").contains("hunter2"));
        let error = MongoStore::connect(options).await.err().unwrap();
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn the_documentation_names_every_index() {
    let page = include_str!("../../../../docs/indexes.md");
    for index in indexes::declared() {
        assert!(page.contains(&format!("| `{}` |", index.name)), "{}", index.name);
    }
}
