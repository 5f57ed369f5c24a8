//! Reading older entries.

use chatbox_shared::auth::Principal;
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::{Seq, SessionId};

use super::audit::{self, Reading};
use super::context::Context;
use super::{access, page};
use crate::log::entry::Entry;
use crate::session::failures;

/// Bytes of text in one page, so that no page fills the queue of a client.
const MAX_BYTES: usize = 192 << 10;

/// The entries before `before`, ascending; 0: the latest. At most `limit` entries and [`MAX_BYTES`] of text, but at least one
/// entry, and always those next to `before`.
///
/// # Errors
/// `not_found` if the principal may not read the session; or if the limit is out of bounds or the store cannot be reached.
pub async fn history(
    cx: &Context,
    by: &Principal,
    id: SessionId,
    before: Seq,
    limit: u32,
) -> Result<Vec<Entry>, Failure> {
    let session = access::readable(cx, by, id).await?;
    audit::read(by, &session, Reading::History);
    let before = if before == 0 { Seq::MAX } else { before };
    let rows = cx.sessions.store.entries_before(session.id, before, page::rows(limit)?).await;
    let rows = rows.map_err(|error| failures::storage(session.id, &error))?;
    let mut entries: Vec<_> = rows.into_iter().map(|row| session.unseal(row)).collect();
    let mut bytes = 0;
    let fit = entries.iter().rev().take_while(|entry| {
        bytes += entry.content.text().len();
        bytes <= MAX_BYTES
    });
    let skip = entries.len() - fit.count().clamp(1.min(entries.len()), entries.len());
    entries.drain(..skip);
    Ok(entries)
}
