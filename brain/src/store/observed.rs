//! A store with a time limit and a duration metric around every operation.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{ClientMessageId, MessageId, Seq, SessionId, UserId};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::unreadable::UnreadableRows;
use super::{
    AnswerVersion, Appended, EntryRow, LeaseCursor, LeasePage, SessionCursor, SessionRow, SharedStore, StateFilter,
    Store, StoreError, StoreResult, Summary, WrappedKey,
};
use crate::ledger::{Allowance, Day, DayUsage, Reservation, UsageRecord, UsageSum};

/// The name of the histogram. Prometheus adds `_count`, `_sum` and `_bucket`.
const METRIC: &str = "chatbox_brain_store_operation_seconds";

/// Upper bounds in seconds: a local commit takes about a millisecond, an election several seconds.
const BUCKETS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 5.0];

/// The outcome of an operation, as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum OperationOutcome {
    Ok,
    Timeout,
    Unavailable,
    Corrupt,
    Refused,
}

impl OperationOutcome {
    const ALL: [Self; 5] = [Self::Ok, Self::Timeout, Self::Unavailable, Self::Corrupt, Self::Refused];

    fn of<T>(result: &StoreResult<T>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(StoreError::Unavailable(_)) => Self::Unavailable,
            Err(StoreError::Corrupt(_)) => Self::Corrupt,
            Err(StoreError::Refused(_)) => Self::Refused,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Refused => "refused",
        }
    }
}

impl EncodeLabelValue for OperationOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.as_str().encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    op: &'static str,
    outcome: OperationOutcome,
}

/// A store with a time limit and a histogram around every operation.
pub struct Observed {
    inner: SharedStore,
    limit: Duration,
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Observed {
    /// Wraps `inner`. No operation but a migration takes longer than `limit`.
    pub fn wrap(inner: SharedStore, limit: Duration, registry: &mut Registry) -> SharedStore {
        let seconds = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        for op in OPERATIONS {
            for outcome in OperationOutcome::ALL {
                drop(seconds.get_or_create(&Labels { op, outcome }));
            }
        }
        inner.unreadable_rows().register(registry);
        registry.register(METRIC, "Duration of store operations", seconds.clone());
        Arc::new(Self { inner, limit, seconds })
    }

    async fn observe<T>(&self, op: &'static str, work: impl Future<Output = StoreResult<T>> + Send) -> StoreResult<T> {
        let started = Instant::now();
        // Building an index takes as long as the data demands, and waiting for it is harmless.
        let limited = if op == "migrate" { Ok(work.await) } else { tokio::time::timeout(self.limit, work).await };
        let (outcome, result) = match limited {
            Ok(result) => (OperationOutcome::of(&result), result),
            Err(_) => (
                OperationOutcome::Timeout,
                Err(StoreError::Unavailable(format!("{op} took longer than {:?}", self.limit))),
            ),
        };
        self.seconds.get_or_create(&Labels { op, outcome }).observe(started.elapsed().as_secs_f64());
        result
    }
}

macro_rules! observed {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {
        /// The operations, as the label `op` names them.
        const OPERATIONS: &[&str] = &[$(stringify!($name)),*];

        #[async_trait]
        impl Store for Observed {
            fn unreadable_rows(&self) -> UnreadableRows {
                self.inner.unreadable_rows()
            }

            $(async fn $name(&self, $($argument: $type),*) -> StoreResult<$output> {
                self.observe(stringify!($name), self.inner.$name($($argument),*)).await
            })*
        }
    };
}

observed! {
    fn now() -> Timestamp;
    fn migrate() -> ();
    fn missing_indexes() -> Vec<String>;
    fn create_session(row: &SessionRow) -> bool;
    fn key_samples(limit: u32) -> Vec<(SessionId, WrappedKey)>;
    fn session(id: SessionId) -> Option<SessionRow>;
    fn list_sessions(user: &UserId, filter: StateFilter, after: Option<SessionCursor>, limit: u32) -> Vec<SessionRow>;
    fn save_summary(session: SessionId, summary: &Summary) -> ();
    fn rename_session(session: SessionId, name: &[u8]) -> bool;
    fn replace_name(session: SessionId, from: &[u8], to: &[u8]) -> bool;
    fn mark_read(session: SessionId, seq: Seq) -> ();
    fn add_response(session: SessionId, took_ms: u64) -> ();
    fn erase_session(session: SessionId) -> ();
    fn append(row: &EntryRow) -> Appended;
    fn entries_after(session: SessionId, after: Seq, limit: u32) -> Vec<EntryRow>;
    fn entries_before(session: SessionId, before: Seq, limit: u32) -> Vec<EntryRow>;
    fn entry(session: SessionId, seq: Seq) -> Option<EntryRow>;
    fn entry_by_client_id(session: SessionId, sender: &UserId, id: ClientMessageId) -> Option<EntryRow>;
    fn streaming_answer(session: SessionId) -> Option<EntryRow>;
    fn latest_answer(session: SessionId, reply_to: Seq) -> Option<EntryRow>;
    fn update_answer(row: &EntryRow, seen: AnswerVersion) -> bool;
    fn next_unanswered(session: SessionId) -> Option<EntryRow>;
    fn clear_need(session: SessionId, id: MessageId, seq: Seq) -> ();
    fn expired_answers(before: Timestamp, after: Option<LeaseCursor>, limit: u32) -> LeasePage;
    fn unanswered_between(from: Timestamp, before: Timestamp, limit: u32) -> Vec<EntryRow>;
    fn reserve_usage(reservation: &Reservation, allowance: &Allowance) -> bool;
    fn record_usage(record: &UsageRecord) -> UsageRecord;
    fn open_reservations(user: &UserId) -> Vec<Reservation>;
    fn expired_reservations(now: Timestamp, limit: u32) -> Vec<Reservation>;
    fn session_usage(session: SessionId) -> UsageSum;
    fn save_session_usage(session: SessionId, usage: &UsageSum) -> ();
    fn user_usage(user: &UserId, from: Day, limit: u32) -> Vec<DayUsage>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{message, session_row};
    use crate::store::sqlite::SqliteStore;

    fn line(registry: &Registry, op: &str, outcome: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        let prefix = format!("{METRIC}_count{{op=\"{op}\",outcome=\"{outcome}\"}} ");
        let found =
            text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{prefix}: {text}"));
        found.parse().unwrap()
    }

    #[tokio::test]
    async fn every_operation_is_counted_by_its_outcome() {
        let folder = tempfile::tempdir().unwrap();
        let inner = Arc::new(SqliteStore::open(&folder.path().join("chatbox.db")).unwrap());
        let mut registry = Registry::default();
        let store = Observed::wrap(inner, Duration::from_secs(5), &mut registry);
        for op in OPERATIONS {
            assert_eq!(line(&registry, op, "timeout"), 0);
        }
        let row = session_row("user");
        assert!(matches!(store.create_session(&row).await, Err(StoreError::Refused(_))), "there are no tables yet");
        store.migrate().await.unwrap();
        assert!(store.create_session(&row).await.unwrap());
        assert_eq!(store.append(&message(row.id, 1)).await.unwrap(), Appended::Done);
        assert_eq!(line(&registry, "create_session", "refused"), 1);
        assert_eq!(line(&registry, "create_session", "ok"), 1);
        assert_eq!(line(&registry, "append", "ok"), 1);
    }

    /// A file that another process holds locked is a store that does not answer.
    #[tokio::test]
    async fn an_operation_that_takes_too_long_is_unavailable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chatbox.db");
        let inner = Arc::new(SqliteStore::open(&path).unwrap());
        let mut registry = Registry::default();
        let store = Observed::wrap(inner, Duration::from_millis(50), &mut registry);
        store.migrate().await.unwrap();
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let row = session_row("user");
        let started = Instant::now();
        let Err(StoreError::Unavailable(text)) = store.create_session(&row).await else { panic!("it was locked") };
        assert!(text.contains("create_session") && started.elapsed() < Duration::from_secs(2), "{text}");
        assert_eq!(line(&registry, "create_session", "timeout"), 1);
        // Reading goes on meanwhile.
        assert_eq!(store.session(row.id).await.unwrap(), None);
        other.execute_batch("ROLLBACK").unwrap();
    }
}
