//! Writes to an answer's row. Each is a compare-and-set on the version that the writer has seen (fence, revision and lease), so
//! a brain that has lost the row cannot write, and no write replaces one that its writer has not seen.

use std::time::Duration;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::{ErrorCode, Failure};

use crate::llm::tokens;
use crate::log::entry::{Body, Content, Entry, EntryState, FinishReason, TokenUsage};
use crate::session::failures;
use crate::session::handle::Session;
use crate::store::{AnswerVersion, EntryRow, Store, StoreError};

/// The lease of an answer that its owner has handed over. It is before every other lease, so the sweep finds these answers
/// first.
pub(super) const HANDED_OVER: Timestamp = Timestamp(0);

/// How often the owner tries a write again after it has met a version it had not seen.
const OWN_TRIES: usize = 5;
/// The wait before such a try. A majority may not have the latest version yet.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Replaces an answer's row, if it is still streaming and has the version `seen`. `false`: it has another one. A repeated write
/// that has succeeded before, without this brain learning it, counts as a success.
///
/// # Errors
/// If the store cannot be reached.
pub(super) async fn replace(
    store: &dyn Store,
    session: &Session,
    entry: &Entry,
    seen: AnswerVersion,
) -> Result<bool, Failure> {
    let row = session.seal(entry).map_err(|error| failures::internal(session.id, &error))?;
    Ok(try_replace(store, session, &row, seen).await? == Replaced::Done)
}

/// As [`replace`], for the owner of the row. While the row has the owner's fence, no other brain has written it: an unseen
/// version is an earlier write of the owner whose reply was lost, and the owner goes on from there.
///
/// # Errors
/// If the store cannot be reached.
pub(super) async fn replace_own(
    store: &dyn Store,
    session: &Session,
    entry: &Entry,
    seen: AnswerVersion,
) -> Result<bool, Failure> {
    let row = session.seal(entry).map_err(|error| failures::internal(session.id, &error))?;
    let mut seen = seen;
    for _ in 0..OWN_TRIES {
        match try_replace(store, session, &row, seen).await? {
            Replaced::Done => return Ok(true),
            Replaced::Unseen(version) if version.fence == seen.fence => seen = version,
            Replaced::Unseen(_) | Replaced::Ended => return Ok(false),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Err(ErrorCode::StorageUnavailable.into())
}

/// The outcome of a compare-and-set.
#[derive(Debug, PartialEq, Eq)]
enum Replaced {
    /// The row is as it was to be written.
    Done,
    /// The row is streaming in this version.
    Unseen(AnswerVersion),
    /// The row does not stream any more, or is gone.
    Ended,
}

async fn try_replace(
    store: &dyn Store,
    session: &Session,
    row: &EntryRow,
    seen: AnswerVersion,
) -> Result<Replaced, Failure> {
    let storage = |error: StoreError| failures::storage(session.id, &error);
    if store.update_answer(row, seen).await.map_err(storage)? {
        return Ok(Replaced::Done);
    }
    let Some(stored) = store.entry(session.id, row.meta.seq).await.map_err(storage)? else {
        return Ok(Replaced::Ended);
    };
    if stored.meta == row.meta {
        return Ok(Replaced::Done);
    }
    let version = AnswerVersion::of(&stored.meta).filter(|_| stored.meta.state == EntryState::Streaming);
    Ok(version.map_or(Replaced::Ended, Replaced::Unseen))
}

/// Marks the entry as ended under the next fence.
pub(super) fn finish(entry: &mut Entry, state: EntryState, finish: Option<FinishReason>, error: Option<ErrorCode>) {
    entry.meta.state = state;
    entry.meta.rev += 1;
    if entry.content == Content::Unreadable {
        // Unreadable content cannot be written back, and without this write the answer would stream for ever. The error was
        // logged when the content was read.
        entry.content = Content::Text(String::new());
    }
    let output = tokens::estimate(entry.content.text());
    let Body::Answer(answer) = &mut entry.meta.body else { return };
    answer.finish = finish;
    answer.error = error;
    answer.usage.get_or_insert(TokenUsage { input: 0, cached: 0, output, estimated: true });
    answer.fence += 1;
}
