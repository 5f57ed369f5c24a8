//! What every store must do, as tests over `&dyn Store`: over SQLite one by one, over a real mongod all in one test, each
//! with a database of its own.

use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{CallId, ClientMessageId, MessageId, Seq, SessionId, UserId};
use futures_util::future::{BoxFuture, join_all};

use super::mongo::{MongoOptions, MongoStore};
use super::sqlite::SqliteStore;
use super::{EntryRow, Responses, SessionRow, Store, Summary, WrappedKey};
use crate::ledger::UsageSum;
use crate::ledger::{Call, Purpose};
use crate::log::entry::{Answer, Body, EntryMeta, EntryState, LogEvent, Person, Sender};

mod answers;
mod ledger;
mod log;
mod sessions;

/// All cases, by name.
macro_rules! suite {
    ($($module:ident: $($case:ident),* $(,)?;)*) => {
        mod sqlite {
            $($(#[tokio::test]
            async fn $case() {
                let folder = tempfile::tempdir().unwrap();
                let store = super::SqliteStore::open(&folder.path().join("chatbox.db")).unwrap();
                super::Store::migrate(&store).await.unwrap();
                super::$module::$case(&store).await;
            })*)*
        }

        const CASES: &[(&str, for<'a> fn(&'a dyn Store) -> BoxFuture<'a, ()>)] =
            &[$($((stringify!($case), |store| Box::pin($module::$case(store)))),*),*];
    };
}

suite! {
    sessions:
        a_session_reads_back_as_it_was_written,
        an_id_is_given_once,
        each_key_in_use_has_one_sample,
        a_summary_never_goes_back,
        names_and_read_markers,
        responses_are_counted,
        lists_come_in_pages_latest_first,
        an_erased_session_is_gone_but_its_id,
        the_clock_goes_on;
    log:
        every_kind_of_entry_reads_back_as_it_was_written,
        a_place_is_taken_once,
        a_client_message_is_stored_once_per_sender,
        the_same_row_again_is_done_again,
        a_duplicate_at_a_taken_place_is_found_at_a_higher_one,
        racing_writers_leave_no_gap,
        racing_duplicates_store_one,
        pages_of_a_log,
        messages_that_need_an_answer;
    answers:
        one_answer_per_message_and_generation,
        one_streaming_answer_per_session,
        only_the_fence_may_write,
        one_of_many_takes_an_answer_over,
        an_update_replaces_everything_that_changes,
        leases_that_ended,
        expired_leases_come_in_pages,
        an_event_of_a_newer_version_is_an_unknown_event;
    ledger:
        a_record_reads_back_as_it_was_written,
        a_reservation_reads_back_and_counts_once,
        racing_reservations_never_exceed_the_allowance,
        racing_records_of_one_call_make_one,
        a_call_is_recorded_and_settled_once,
        each_limit_refuses_on_its_own,
        a_settled_reservation_frees_what_was_not_used,
        days_and_users_are_apart,
        open_and_expired_reservations_until_they_are_settled,
        a_sessions_sum_is_that_of_its_records,
        racing_calls_leave_accounts_that_equal_the_ledger;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongodb_conforms() {
    let server = chatbox_tests::mongod::Mongod::start().await.unwrap();
    for (name, case) in CASES {
        println!("{name}");
        let store = mongo(&server, name).await;
        case(&store).await;
    }
    let store = mongo(&server, "unreadable").await;
    let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
    let messages = client.database("unreadable").collection::<bson::Document>("messages");
    answers::unreadable_rows(&store, async |session, seq| {
        let row = bson::doc! { "sid": bson::Uuid::from_uuid_1(session.0), "seq": i64::try_from(seq).unwrap() };
        messages.update_one(row, bson::doc! { "$unset": { "fen": "" } }).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn sqlite_skips_rows_that_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chatbox.db");
    let store = SqliteStore::open(&file).unwrap();
    store.migrate().await.unwrap();
    let raw = rusqlite::Connection::open(&file).unwrap();
    answers::unreadable_rows(&store, async |session, seq| {
        let row = (session.0.as_bytes().as_slice(), i64::try_from(seq).unwrap());
        raw.execute("UPDATE messages SET fen = NULL WHERE sid = ?1 AND seq = ?2", row).unwrap();
    })
    .await;
}

/// A migrated store in a database of its own. Names of databases are short: 63 bytes.
pub(crate) async fn mongo(server: &chatbox_tests::mongod::Mongod, database: &str) -> MongoStore {
    let store = MongoStore::connect(mongo_options(server, database)).await.unwrap();
    store.migrate().await.unwrap();
    store
}

pub(super) fn mongo_options(server: &chatbox_tests::mongod::Mongod, database: &str) -> MongoOptions {
    MongoOptions {
        uri: server.uri().into(),
        database: database.to_owned(),
        max_pool_size: 10,
        allow_standalone: false,
        timeout: std::time::Duration::from_secs(5),
    }
}

/// A call for the answer in a new session of `user`.
pub(super) fn call(user: &str, started_at: Timestamp) -> Call {
    Call {
        id: CallId::generate(),
        user: UserId::new(user),
        session: SessionId::generate(),
        purpose: Purpose::Answer,
        seq: 2,
        attempt: 1,
        model_id: "demo".into(),
        provider: "demo".into(),
        started_at,
    }
}

/// A new session of `user`.
pub(super) fn session_row(user: &str) -> SessionRow {
    let id = SessionId::generate();
    SessionRow {
        id,
        user: UserId::new(user),
        epoch: "epoch".into(),
        name: vec![1, 2, 3],
        started_at: Timestamp(1_000),
        data_key: Some(WrappedKey { kid: "k1".into(), wrapped: vec![9; 60] }),
        summary: summary(0, 1_000),
        read_seq: 0,
        usage: UsageSum::default(),
        responses: Responses::default(),
    }
}

pub(super) fn summary(seq: Seq, last_at: i64) -> Summary {
    Summary {
        seq,
        last_at: Timestamp(last_at),
        ended_at: None,
        message_count: seq,
        model_id: "demo".into(),
        admin_assisted: false,
        admin: None,
        joined_seq: 0,
        help_requested_at: None,
    }
}

pub(super) fn person(id: &str) -> Person {
    Person { id: UserId::new(id), name: Some(format!("{id}'s name")) }
}

fn row(session: SessionId, seq: Seq, state: EntryState, sender: Sender, body: Body) -> EntryRow {
    let created_at = Timestamp(1_000 + i64::try_from(seq).unwrap());
    let meta = EntryMeta { id: MessageId::generate(), session, seq, rev: 1, created_at, state, sender, body };
    EntryRow { meta, content: vec![7; 40] }
}

/// A message of the user `user`, which needs an answer.
pub(super) fn message(session: SessionId, seq: Seq) -> EntryRow {
    let body = Body::Message { client_msg_id: ClientMessageId::generate(), needs_answer: true };
    row(session, seq, EntryState::Final, Sender::User(person("user")), body)
}

/// A streaming answer under fence 1.
pub(super) fn answer(session: SessionId, seq: Seq, reply_to: Seq, generation: u32) -> EntryRow {
    let answer = Answer::begin(reply_to, generation, "demo".into(), "brain-1".into(), Timestamp(10_000));
    EntryRow {
        content: Vec::new(),
        ..row(session, seq, EntryState::Streaming, Sender::Ai, Body::Answer(Box::new(answer)))
    }
}

pub(super) fn event(session: SessionId, seq: Seq, event: LogEvent) -> EntryRow {
    EntryRow { content: Vec::new(), ..row(session, seq, EntryState::Final, Sender::System, Body::Event(event)) }
}

/// The same entry as a final one.
pub(super) fn ended(mut row: EntryRow) -> EntryRow {
    row.meta.state = EntryState::Final;
    row
}

fn seqs(rows: &[EntryRow]) -> Vec<Seq> {
    rows.iter().map(|row| row.meta.seq).collect()
}

async fn together<T>(work: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    join_all(work).await
}
