//! The writing connection, on its own thread. All queued writes are committed together, so they share one flush of the
//! disk; each write succeeds or fails by itself. Callers get their result after the commit.

use std::thread;

use rusqlite::{Connection, Savepoint, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::error::from_sqlite;
use crate::store::{StoreError, StoreResult};

/// Queued writes. A caller with one more waits, which in turn stops reading from that caller's socket.
const QUEUE: usize = 1024;

/// Writes per commit, so that none waits long for the others.
const GROUP: usize = 256;

/// Sends the caller its result, or the reason why the group was not committed.
type Respond = Box<dyn FnOnce(Option<StoreError>) + Send>;

/// A write. Returns whether to keep its changes, and how to respond after the commit.
type Job = Box<dyn FnOnce(&Connection) -> (bool, Respond) + Send>;

/// The handle of the writer thread. The thread ends when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub(super) fn start(connection: Connection) -> StoreResult<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || run(connection, queue))
            .map_err(|error| StoreError::Unavailable(format!("cannot start the writer thread: {error}")))?;
        Ok(Self { jobs })
    }

    /// Runs `write` in a transaction and returns once it is on disk. An error undoes this write alone.
    pub(super) async fn write<T, F>(&self, write: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = write(connection);
            let keep = result.is_ok();
            let reply: Respond = Box::new(move |failure| {
                // The caller may have stopped waiting.
                let _ = answer.send(failure.map_or(result, Err));
            });
            (keep, reply)
        });
        self.jobs.send(job).await.map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn run(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        let mut answers = Vec::with_capacity(group.len());
        let failure = commit(&mut connection, group.drain(..), &mut answers).err();
        let text = failure.map(|error| from_sqlite(error).to_string());
        for answer in answers {
            answer(text.clone().map(StoreError::Unavailable));
        }
    }
}

/// Runs the jobs in one transaction. On an error nothing of the group is committed.
fn commit(
    connection: &mut Connection,
    jobs: impl Iterator<Item = Job>,
    answers: &mut Vec<Respond>,
) -> rusqlite::Result<()> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let mut broken = None;
    for job in jobs {
        match &mut transaction {
            Ok(transaction) if broken.is_none() => broken = run_job(transaction, job, answers).err(),
            // Not run: dropping the job tells its caller that the store is unavailable.
            _ => drop(job),
        }
    }
    match broken {
        Some(error) => Err(error),
        None => transaction?.commit(),
    }
}

/// Runs one job in a savepoint. An error means that the whole transaction is lost: SQLite rolls it back when the disk
/// is full or fails.
fn run_job(transaction: &mut Transaction<'_>, job: Job, answers: &mut Vec<Respond>) -> rusqlite::Result<()> {
    let savepoint: Savepoint<'_> = transaction.savepoint()?;
    let (keep, answer) = job(&savepoint);
    answers.push(answer);
    if keep { savepoint.commit() } else { savepoint.finish() }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the writer thread of the database file has failed".into())
}
