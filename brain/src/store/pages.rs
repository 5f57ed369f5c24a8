//! Pages of rows some of which cannot be read: such a row is left out of its page, and the page after it begins behind it.

use super::{EntryRow, LeaseCursor, LeasePage, SessionCursor, SessionRow, StoreResult};

/// A session with its place in a list. Place or session are `None` where they cannot be read.
pub(super) type ListedRow = (Option<SessionCursor>, Option<SessionRow>);

/// A streaming answer with its place in the order of leases. Place or answer are `None` where they cannot be read.
pub(super) type LeasedRow = (Option<LeaseCursor>, Option<EntryRow>);

/// Reads until the page has `limit` sessions or the list ends: a caller takes a page with fewer sessions for the last one.
pub(super) async fn full_page<F: Future<Output = StoreResult<Vec<ListedRow>>>>(
    mut after: Option<SessionCursor>,
    limit: u32,
    next: impl Fn(Option<SessionCursor>, u32) -> F,
) -> StoreResult<Vec<SessionRow>> {
    let mut page = Vec::new();
    loop {
        let wanted = limit.saturating_sub(u32::try_from(page.len()).unwrap_or(limit));
        let found = next(after, wanted).await?;
        let ended = wanted == 0 || found.len() < wanted as usize;
        let last = found.iter().rev().find_map(|(place, _)| *place);
        page.extend(found.into_iter().filter_map(|(_, session)| session));
        if ended || last.is_none() {
            return Ok(page);
        }
        after = last;
    }
}

/// The page that these rows are.
pub(super) fn lease_page(found: Vec<LeasedRow>, limit: u32) -> LeasePage {
    let last = found.iter().rev().find_map(|(place, _)| *place);
    let next = last.filter(|_| found.len() >= limit as usize);
    LeasePage { rows: found.into_iter().filter_map(|(_, row)| row).collect(), next }
}
