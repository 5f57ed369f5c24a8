//! Writes to an answer's row. Each is a compare-and-set on the fence, so a brain that has lost the row cannot write.

use chatbox_shared::failure::{ErrorCode, Failure};

use crate::llm::tokens;
use crate::log::entry::{Body, Content, Entry, EntryState, FinishReason, TokenUsage};
use crate::session::failures;
use crate::session::handle::Session;
use crate::store::{Store, StoreError};

/// Replaces an answer's row, if it is still streaming under `fence`. `false`: it is not. A repeated write that has succeeded
/// before, without this brain learning it, counts as a success.
///
/// # Errors
/// If the store cannot be reached.
pub(super) async fn replace(store: &dyn Store, session: &Session, entry: &Entry, fence: u64) -> Result<bool, Failure> {
    let row = session.seal(entry).map_err(|error| failures::internal(session.id, &error))?;
    let storage = |error: StoreError| failures::storage(session.id, &error);
    if store.update_answer(&row, fence).await.map_err(storage)? {
        return Ok(true);
    }
    let stored = store.entry(session.id, entry.meta.seq).await.map_err(storage)?;
    Ok(stored.is_some_and(|stored| stored.meta == entry.meta))
}

/// Marks the entry as ended under the next fence, and returns the fence it had.
pub(super) fn finish(
    entry: &mut Entry,
    state: EntryState,
    finish: Option<FinishReason>,
    error: Option<ErrorCode>,
) -> u64 {
    entry.meta.state = state;
    entry.meta.rev += 1;
    if entry.content == Content::Unreadable {
        // Unreadable content cannot be written back, and without this write the answer would stream for ever. The error was
        // logged when the content was read.
        entry.content = Content::Text(String::new());
    }
    let output = tokens::estimate(entry.content.text());
    let Body::Answer(answer) = &mut entry.meta.body else { return 0 };
    answer.finish = finish;
    answer.error = error;
    answer.usage.get_or_insert(TokenUsage { input: 0, cached: 0, output, estimated: true });
    let fence = answer.fence;
    answer.fence += 1;
    fence
}
