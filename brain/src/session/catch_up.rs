//! Bringing a session up to date with its stored log: reads what other brains have written and publishes it.

use chatbox_shared::failure::Failure;
use chatbox_shared::ids::Seq;

use super::failures;
use super::handle::Session;
use super::live::Applied;
use crate::store::{EntryRow, Store};

/// Entries read in one query.
const PAGE: u32 = 200;

/// Reads the entries after the last known one, and the state of an answer that was growing, and publishes them.
///
/// # Errors
/// If the store cannot be reached.
pub async fn catch_up(store: &dyn Store, session: &Session) -> Result<(), Failure> {
    if let Some(seq) = session.read(|live| live.streaming.as_ref().map(|entry| entry.meta.seq)) {
        read_again(store, session, seq).await?;
    }
    loop {
        let rows = store.entries_after(session.id, session.seq(), PAGE).await;
        let rows = rows.map_err(|error| failures::storage(session.id, &error))?;
        let more = rows.len() == PAGE as usize;
        apply_rows(session, rows);
        if !more {
            return read_ends(store, session).await;
        }
    }
}

/// Reads the ends of answers that ended on another brain before a newer answer began.
///
/// # Errors
/// If the store cannot be reached.
pub(super) async fn read_ends(store: &dyn Store, session: &Session) -> Result<(), Failure> {
    let unseen = session.read(|live| live.ended_unseen.clone());
    for (seq, _) in unseen {
        read_again(store, session, seq).await?;
    }
    Ok(())
}

/// Reads the current state of the answer at `seq` and publishes it.
///
/// # Errors
/// If the store cannot be reached.
pub(crate) async fn read_again(store: &dyn Store, session: &Session, seq: Seq) -> Result<(), Failure> {
    let row = store.entry(session.id, seq).await.map_err(|error| failures::storage(session.id, &error))?;
    apply_rows(session, row.into_iter().collect());
    Ok(())
}

/// Gives ascending rows of the log to the session.
pub(super) fn apply_rows(session: &Session, rows: Vec<EntryRow>) {
    for row in rows {
        if session.apply(&session.unseal(row)) == Applied::Gap {
            // Rows are read in order from the last known seq on, so the stored log itself lacks an entry.
            tracing::error!(session = %session.id, "the stored log has a gap");
            return;
        }
    }
}
