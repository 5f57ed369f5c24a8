//! The one connection that writes, on a thread of its own. Whatever waits in its queue is committed together, so that
//! many writers share one flush of the disk; each write stands or falls for itself. Answers leave after the commit.

use std::thread;

use rusqlite::{Connection, Savepoint, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::error::from_sqlite;
use crate::store::{StoreError, StoreResult};

/// Writes that may wait; a further one makes its caller wait, which stops the reading of that caller's socket.
const QUEUE: usize = 1024;

/// Writes committed together at most, so that none waits long for the others.
const GROUP: usize = 256;

/// Gives the caller its outcome, or the reason why nothing of the group was committed.
type Respond = Box<dyn FnOnce(Option<StoreError>) + Send>;

/// A write: says whether its changes are to be kept, and how to answer once that is certain.
type Job = Box<dyn FnOnce(&Connection) -> (bool, Respond) + Send>;

/// The way to the writing thread. The thread ends when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(connection: Connection) -> StoreResult<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || run(connection, queue))
            .map_err(|error| StoreError::Unavailable(format!("cannot start the thread that writes: {error}")))?;
        Ok(Self { jobs })
    }

    /// Runs `write` in a transaction and returns once it is on the disk. An error undoes this write alone.
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
                // A caller that has stopped waiting does not want to know.
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

/// Runs the jobs in one transaction. On an error nothing of the group is in the file.
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
            // Not run at all: dropping the job tells its caller that the store is not available.
            _ => drop(job),
        }
    }
    match broken {
        Some(error) => Err(error),
        None => transaction?.commit(),
    }
}

/// Runs one job in its savepoint. An error means that the whole transaction is lost: SQLite ends it by itself when the
/// disk is full or fails.
fn run_job(transaction: &mut Transaction<'_>, job: Job, answers: &mut Vec<Respond>) -> rusqlite::Result<()> {
    let savepoint: Savepoint<'_> = transaction.savepoint()?;
    let (keep, answer) = job(&savepoint);
    answers.push(answer);
    if keep { savepoint.commit() } else { savepoint.finish() }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the thread that writes to the database file could not do it".into())
}
