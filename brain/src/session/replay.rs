//! Replays a log to a follower, then lets the follower follow live, with nothing missed in between. The session is in memory
//! before the first read. The follower joins the audience under the session's lock, at a moment when everything the session
//! knows has been sent to it, so no event can fall between the replay and live delivery.

use std::time::Duration;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::Seq;
use smallvec::SmallVec;

use super::audience::{Follower, Paced};
use super::catch_up::apply_rows;
use super::event::{AnswerDelta, SessionEvent};
use super::failures;
use super::handle::Session;
use super::live::Live;
use super::view::SessionView;
use crate::log::entry::{Entry, EntryState};
use crate::store::{EntryRow, Store, StoreResult};

/// Entries read from the store in one query.
const PAGE: u32 = 50;
/// After this many bytes the replay waits until the client has taken them. Well under the bound of a gateway's queue.
const PACE_BYTES: usize = 48 << 10;
/// How long a client may take for that many bytes before the replay is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// What an entry takes besides its text, roughly.
const ENTRY_BYTES: usize = 512;
/// How long to wait before an answer that has ended is read again, if the store still has it as streaming.
const REREAD_PAUSE: Duration = Duration::from_millis(50);

/// From where a log is replayed.
#[derive(Debug, Clone, Default)]
pub struct ReplayFrom {
    /// The client has every entry up to here in its final form.
    pub after_seq: Seq,
    /// The log that `after_seq` belongs to; empty if the client does not say.
    pub epoch: String,
    /// The largest number of entries to replay; the latest ones are chosen.
    pub limit: u64,
}

/// Where a replay starts, and the session at that moment.
#[derive(Debug)]
pub struct ReplayStart {
    /// The session.
    pub view: SessionView,
    /// The replay begins with the entry after this one.
    pub after: Seq,
    /// Older entries exist that the client lacks and the replay leaves out: the replay begins here. 0: none.
    pub truncated_before: Seq,
    /// What the client had is void: it belongs to another log.
    pub reset: bool,
}

/// How a replay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayEnd {
    /// The follower follows live.
    Live,
    /// The replay had to stop; see [`Follower::is_closed`].
    Gone,
    /// The client took the replay too slowly.
    TooSlow,
}

/// Where a replay of this session starts.
pub fn start(session: &Session, from: &ReplayFrom) -> ReplayStart {
    let view = session.view();
    let seq = view.summary.seq;
    let reset = from.after_seq > seq || (!from.epoch.is_empty() && from.epoch != session.epoch);
    let wanted = if reset { 0 } else { from.after_seq };
    let after = wanted.max(seq.saturating_sub(from.limit));
    let truncated_before = if after > wanted { after + 1 } else { 0 };
    ReplayStart { view, after, truncated_before, reset }
}

/// Replays the entries after `after`, then lets the follower follow live. The session has just caught up with the store, and
/// the follower does not follow it yet.
///
/// # Errors
/// If the store cannot be reached, or if the session was erased. The follower does not follow the session then.
pub async fn replay<F: Follower>(
    store: &dyn Store,
    session: &Session,
    follower: &F,
    after: Seq,
) -> Result<ReplayEnd, Failure> {
    let mut replay = Replay { session, follower, sent: after, unpaced: 0, shown: SmallVec::new() };
    loop {
        let changed = match replay.join()? {
            Joined::Live => return Ok(ReplayEnd::Live),
            Joined::Gone => return Ok(ReplayEnd::Gone),
            Joined::Behind => None,
            Joined::Changed(seq) => Some(seq),
        };
        let rows = read(store, session, replay.sent, changed).await;
        let rows = rows.map_err(|error| failures::storage(session.id, &error))?;
        if rows.is_empty() && changed.is_none() {
            // The session was erased during the replay, or the stored log has a gap: there is nothing more to replay.
            return Err(ErrorCode::NotFound.into());
        }
        apply_rows(session, rows.clone());
        for row in rows {
            match replay.send(row, changed.is_some()).await {
                Paced::Taken => {}
                Paced::Gone => return Ok(ReplayEnd::Gone),
                Paced::TooSlow => return Ok(ReplayEnd::TooSlow),
            }
        }
    }
}

/// The answer that has changed, if one has, else the next page.
async fn read(store: &dyn Store, session: &Session, sent: Seq, changed: Option<Seq>) -> StoreResult<Vec<EntryRow>> {
    match changed {
        Some(seq) => Ok(store.entry(session.id, seq).await?.into_iter().collect()),
        None => store.entries_after(session.id, sent, PAGE).await,
    }
}

/// A replay under way.
struct Replay<'a, F> {
    session: &'a Session,
    follower: &'a F,
    /// The last entry that was sent.
    sent: Seq,
    /// Bytes sent since the client was last waited for.
    unpaced: usize,
    /// The growing answers that were sent, as they were sent.
    shown: SmallVec<[Shown; 1]>,
}

/// The result of an attempt to follow live.
enum Joined {
    /// The follower follows live.
    Live,
    /// The replay must stop.
    Gone,
    /// Entries after the last one sent are missing.
    Behind,
    /// The answer at this seq was sent while it grew, has ended since, and must be read again.
    Changed(Seq),
}

impl<F: Follower> Replay<'_, F> {
    /// Follows live, if everything the session knows was sent.
    fn join(&mut self) -> Result<Joined, Failure> {
        let mut live = self.session.live.lock();
        if live.erased {
            return Err(ErrorCode::NotFound.into());
        }
        if self.follower.is_closed() {
            return Ok(Joined::Gone);
        }
        if self.sent < live.state.seq {
            return Ok(Joined::Behind);
        }
        let streaming = live.streaming.as_ref().map(|entry| entry.meta.seq);
        if let Some(at) = self.shown.iter().position(|shown| Some(shown.seq) != streaming) {
            return Ok(Joined::Changed(self.shown.swap_remove(at).seq));
        }
        if let Some(event) = missing_text(&live, self.shown.first()) {
            self.follower.deliver(event);
        }
        self.follower.deliver(SessionEvent::Ready(live.state.seq));
        // A subscriber that leaves from here on waits for the session's lock, and is then removed from the audience.
        live.subscribe(self.follower.subscriber());
        Ok(Joined::Live)
    }

    /// Sends one entry. `again`: it is an answer that was sent before and has ended since.
    async fn send(&mut self, row: EntryRow, again: bool) -> Paced {
        let entry = newest(self.session, self.session.unseal(row));
        self.sent = self.sent.max(entry.meta.seq);
        if let Some(shown) = Shown::of(&entry) {
            self.shown.push(shown);
            if again {
                // This brain knows that the answer has ended, but the store does not return its end yet.
                tokio::time::sleep(REREAD_PAUSE).await;
                return Paced::Taken;
            }
        }
        self.unpaced += entry.content.text().len() + ENTRY_BYTES;
        if self.unpaced < PACE_BYTES {
            self.follower.deliver(SessionEvent::Entry(&entry));
            return Paced::Taken;
        }
        self.unpaced = 0;
        self.follower.deliver_paced(SessionEvent::Entry(&entry), PATIENCE).await
    }
}

/// A growing answer as it was sent.
struct Shown {
    seq: Seq,
    attempt: u32,
    next_index: u64,
    bytes: usize,
}

impl Shown {
    fn of(entry: &Entry) -> Option<Self> {
        let answer = entry.meta.answer().filter(|_| entry.meta.state == EntryState::Streaming)?;
        let bytes = entry.content.text().len();
        Some(Self { seq: entry.meta.seq, attempt: answer.attempt, next_index: answer.next_index, bytes })
    }
}

/// What the follower lacks of the growing answer: the text since it was sent, or all of it.
fn missing_text<'a>(live: &'a Live, shown: Option<&Shown>) -> Option<SessionEvent<'a>> {
    let entry = live.streaming.as_ref()?;
    let answer = entry.meta.answer()?;
    let Some(shown) = shown.filter(|shown| shown.attempt == answer.attempt) else {
        return Some(SessionEvent::Entry(entry));
    };
    let text = entry.content.text().get(shown.bytes..)?;
    let count = answer.next_index.checked_sub(shown.next_index).filter(|count| *count > 0)?;
    Some(SessionEvent::Delta(AnswerDelta {
        seq: shown.seq,
        attempt: shown.attempt,
        index: shown.next_index,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        text,
    }))
}

/// The entry from the store, or the growing answer in memory if that has more text: a client that opens the session again may
/// have seen more than the store has, and its text must not shrink.
fn newest(session: &Session, entry: Entry) -> Entry {
    let progress =
        |entry: &Entry| entry.meta.answer().map(|answer| (entry.meta.rev, answer.attempt, answer.next_index));
    let growing = |live: &Live| live.streaming.as_deref().filter(|growing| growing.meta.seq == entry.meta.seq).cloned();
    match session.read(growing) {
        Some(growing) if progress(&growing) >= progress(&entry) => growing,
        _ => entry,
    }
}
