//! Beginning to read along: the replay of the log, then the switch to live delivery with nothing missed in between. The
//! session is tracked in memory from before the first read; the connection joins its audience under the session's lock
//! at a moment when it has been sent everything, so there is no window in which an event can fall through.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::Seq;
use chatbox_shared::proto::{self, server_message::Message};
use smallvec::SmallVec;

use crate::connection::{Connection, Paced};
use crate::grpc::convert;
use crate::session::Session;
use crate::session::entry::{Entry, EntryState};
use crate::session::live::Live;
use crate::session::registry::Sessions;

/// Entries read from the store at once during a replay.
const PAGE: u32 = 50;
/// After this many bytes a replay waits until the socket has taken them. Well under the gateway's queue bound.
const PACE_BYTES: usize = 48 << 10;
/// How long a socket may take for that many bytes before the replay is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an entry takes besides its text, roughly.
const ENTRY_BYTES: usize = 512;
/// How long to wait before an answer that has ended is read again, where the store still says that it grows.
const REREAD_PAUSE: Duration = Duration::from_millis(50);
/// WebSocket close code: the socket is not read fast enough. The client may connect again and resume.
const CLOSE_TOO_SLOW: u32 = 4008;

/// Where a replay is to begin.
#[derive(Debug, Clone, Default)]
pub struct OpenAt {
    /// The client has everything up to here in its final form.
    pub after_seq: Seq,
    /// Of which log; empty: the client does not say.
    pub epoch: String,
    /// The most entries to replay, the latest.
    pub limit: u64,
    /// The request to answer with the session. `None`: the connection moved here from another brain, and its client
    /// must not notice.
    pub request_no: Option<u32>,
}

/// A growing answer as it was sent.
struct Shown {
    seq: Seq,
    attempt: u32,
    next_index: u64,
    bytes: usize,
}

impl Sessions {
    /// Replays the log from `at` and lets the connection read along. The session has just caught up with the store.
    ///
    /// # Errors
    /// Where the store cannot be reached, after the request was answered; the connection does not read along then.
    pub async fn open(&self, session: &Arc<Session>, connection: &Arc<Connection>, at: OpenAt) -> Result<(), Failure> {
        session.unsubscribe(connection);
        let after = announce(session, connection, &at);
        if !connection.remember(Arc::clone(session)) {
            return Ok(());
        }
        let replayed = self.replay(session, connection, after).await;
        if replayed.is_err() {
            connection.forget(session.id);
        }
        replayed
    }

    async fn replay(&self, session: &Arc<Session>, connection: &Arc<Connection>, after: Seq) -> Result<(), Failure> {
        let mut sent = after;
        let mut unpaced = 0;
        let mut shown: SmallVec<[Shown; 1]> = SmallVec::new();
        loop {
            if connection.is_closed() {
                return Ok(());
            }
            let changed = match join(session, connection, sent, &mut shown)? {
                Joined::Live => return Ok(()),
                Joined::Behind => None,
                Joined::Changed(seq) => Some(seq),
            };
            let rows = match changed {
                Some(seq) => self.store.entry(session.id, seq).await.map(|row| row.into_iter().collect()),
                None => self.store.entries_after(session.id, sent, PAGE).await,
            };
            let rows = rows.map_err(|error| self.storage(session, &error))?;
            if rows.is_empty() && changed.is_none() {
                // The session was erased under us, or the stored log has a hole: nothing more can be replayed.
                return Err(ErrorCode::NotFound.into());
            }
            self.apply_rows(session, rows.clone());
            for row in rows {
                let entry = as_it_grows(session, session.unseal(row));
                sent = sent.max(entry.meta.seq);
                if let Some(streaming) = Shown::of(&entry) {
                    shown.push(streaming);
                    if changed.is_some() {
                        // Its end is not to be read yet, although it is known here.
                        tokio::time::sleep(REREAD_PAUSE).await;
                        continue;
                    }
                }
                unpaced += entry.content.text().len() + ENTRY_BYTES;
                let message = entry_message(session, &entry);
                if unpaced < PACE_BYTES {
                    connection.deliver(message);
                    continue;
                }
                unpaced = 0;
                match connection.deliver_paced(message, PATIENCE).await {
                    Paced::Taken => {}
                    Paced::Gone => return Ok(()),
                    Paced::TooSlow => {
                        connection.kick(CLOSE_TOO_SLOW, "too_slow", "The connection took the replay too slowly.");
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Where a replay stands.
enum Joined {
    /// The connection reads along.
    Live,
    /// Entries after the last one sent are missing.
    Behind,
    /// The answer at this seq has ended since it was sent, and must be read again.
    Changed(Seq),
}

/// Answers the request with the session and tells where the replay begins.
fn announce(session: &Arc<Session>, connection: &Connection, at: &OpenAt) -> Seq {
    let live = session.live.lock();
    let seq = live.state.seq;
    let reset = at.after_seq > seq || (!at.epoch.is_empty() && at.epoch != session.epoch);
    let wanted = if reset { 0 } else { at.after_seq };
    let after = wanted.max(seq.saturating_sub(at.limit));
    if let Some(request_no) = at.request_no {
        let truncated_before = if after > wanted { after + 1 } else { 0 };
        let session = Some(convert::session(session, &live));
        connection.reply(request_no, Some(Message::Session(proto::SessionInfo { session, truncated_before, reset })));
    }
    after
}

/// Tries to switch to live delivery.
fn join(
    session: &Session,
    connection: &Arc<Connection>,
    sent: Seq,
    shown: &mut SmallVec<[Shown; 1]>,
) -> Result<Joined, Failure> {
    let mut live = session.live.lock();
    if live.erased {
        return Err(ErrorCode::NotFound.into());
    }
    if sent < live.state.seq {
        return Ok(Joined::Behind);
    }
    let streaming = live.streaming.as_ref().map(|entry| entry.meta.seq);
    if let Some(at) = shown.iter().position(|shown| Some(shown.seq) != streaming) {
        return Ok(Joined::Changed(shown.swap_remove(at).seq));
    }
    if let Some(message) = bridge(session, &live, shown.first()) {
        connection.deliver(message);
    }
    let seq = live.state.seq;
    connection.deliver(Message::SessionReady(proto::SessionReady { session_id: session.id.to_string(), seq }));
    if !connection.is_closed() {
        live.subscribe(connection);
    }
    Ok(Joined::Live)
}

/// What lies between the growing answer as it was sent and as it stands now.
fn bridge(session: &Session, live: &Live, shown: Option<&Shown>) -> Option<Message> {
    let entry = live.streaming.as_ref()?;
    let answer = entry.meta.answer()?;
    let Some(shown) = shown.filter(|shown| shown.attempt == answer.attempt) else {
        return Some(entry_message(session, entry));
    };
    let missing = entry.content.text().get(shown.bytes..)?;
    let count = answer.next_index.checked_sub(shown.next_index).filter(|count| *count > 0)?;
    Some(Message::AiDelta(proto::AiDelta {
        session_id: session.id.to_string(),
        seq: shown.seq,
        attempt: shown.attempt,
        index: shown.next_index,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        delta: missing.to_owned(),
    }))
}

/// A growing answer with all the text this brain knows of: a client that opens again may have seen more than the store
/// has, and must not be set back.
fn as_it_grows(session: &Session, entry: Entry) -> Entry {
    let progress =
        |entry: &Entry| entry.meta.answer().map(|answer| (entry.meta.rev, answer.attempt, answer.next_index));
    let growing = |live: &Live| live.streaming.as_deref().filter(|growing| growing.meta.seq == entry.meta.seq).cloned();
    match session.read(growing) {
        Some(growing) if progress(&growing) >= progress(&entry) => growing,
        _ => entry,
    }
}

fn entry_message(session: &Session, entry: &Entry) -> Message {
    Message::Entry(proto::EntryEvent { session_id: session.id.to_string(), entry: Some(convert::entry(entry)) })
}

impl Shown {
    fn of(entry: &Entry) -> Option<Self> {
        let answer = entry.meta.answer().filter(|_| entry.meta.state == EntryState::Streaming)?;
        let bytes = entry.content.text().len();
        Some(Self { seq: entry.meta.seq, attempt: answer.attempt, next_index: answer.next_index, bytes })
    }
}
