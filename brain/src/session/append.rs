//! The one way into a log. A writer appends at the last seq + 1, after it has seen every entry before that. If another writer
//! took the place, it reads the new entry, checks again whether its intent is allowed, and tries the next place. An entry is
//! published only after the store has it, in the store's order.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{MessageId, Seq};

use super::catch_up::{catch_up, read_ends};
use super::failures;
use super::handle::Session;
use super::registry::Sessions;
use super::summary;
use crate::log::entry::{Body, Content, Entry, EntryMeta, EntryState, Sender};
use crate::log::state::{Allowed, Intent};
use crate::sabotage::{self, Sabotage};
use crate::store::{Appended, Store};

/// How long to wait for a majority of the store's members to have what one member has.
const MAJORITY_PAUSE: Duration = Duration::from_millis(20);
/// How many places a writer tries before it reports an error. Each failed try means that another writer has succeeded.
const MAX_TRIES: usize = 1000;

/// An entry before it has a place in the log.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its id.
    pub id: MessageId,
    /// `Streaming` for an answer, else `Final`.
    pub state: EntryState,
    /// Who writes it.
    pub sender: Sender,
    /// Its kind. `needs_answer` of a message is decided when it is appended.
    pub body: Body,
    /// Its text.
    pub content: String,
}

impl Draft {
    /// A final entry with a new id.
    pub fn new(sender: Sender, body: Body, content: String) -> Self {
        Self { id: MessageId::generate(), state: EntryState::Final, sender, body, content }
    }

    fn at(&self, session: &Session, seq: Seq, now: Timestamp) -> Entry {
        let (created_at, ai_answers) = session.read(|live| (live.state.last_at.max(now), live.state.ai_answers()));
        let mut body = self.body.clone();
        if let Body::Message { needs_answer, .. } = &mut body {
            *needs_answer = ai_answers && matches!(self.sender, Sender::User(_));
        }
        let meta = EntryMeta {
            id: self.id,
            session: session.id,
            seq,
            rev: 1,
            created_at,
            state: self.state,
            sender: self.sender.clone(),
            body,
        };
        Entry { meta, content: Content::Text(self.content.clone()) }
    }
}

/// The result of appending a draft.
#[derive(Debug, Clone, PartialEq)]
pub enum AppendOutcome {
    /// The entry is durable in the log and was published.
    Appended(Entry),
    /// The log already says what the draft would add. Nothing was written.
    NothingToDo,
    /// The log already has an entry of this sender with this client id.
    Duplicate(Entry),
    /// The answer exists, or another answer is streaming. Nothing was written.
    AnswerTaken(Appended),
}

/// Appends the draft, if the log up to its end allows the intent.
///
/// # Errors
/// Why the intent is refused, or that the store cannot be reached. In the latter case the outcome is unknown, and the same
/// draft may be appended again.
pub async fn append(
    sessions: &Sessions,
    session: &Arc<Session>,
    intent: Intent<'_>,
    draft: &Draft,
) -> Result<AppendOutcome, Failure> {
    let _writer = session.writer.lock().await;
    if session.read(|live| live.erased) {
        return Err(ErrorCode::NotFound.into());
    }
    let pending = sessions.unknown_outcomes.begin(session);
    let outcome = append_at_end(sessions, session, intent, draft).await;
    if let Ok(outcome) = outcome {
        pending.settle();
        return Ok(outcome);
    }
    outcome
}

async fn append_at_end(
    sessions: &Sessions,
    session: &Arc<Session>,
    intent: Intent<'_>,
    draft: &Draft,
) -> Result<AppendOutcome, Failure> {
    let store = sessions.store.as_ref();
    let mut fresh = false;
    for _ in 0..MAX_TRIES {
        let (seq, allowed) = session.read(|live| (live.state.seq + 1, live.state.allows(intent)));
        match allowed {
            Ok(Allowed::Append) => {}
            // The state in memory may be older than the log: read the log before anything is refused.
            _ if !fresh => {
                catch_up(store, session).await?;
                fresh = true;
                continue;
            }
            Ok(Allowed::NothingToDo) => return Ok(AppendOutcome::NothingToDo),
            Err(refused) => {
                return sent_before(store, session, draft).await?.map(AppendOutcome::Duplicate).ok_or(refused);
            }
        }
        let entry = draft.at(session, seq, sessions.now());
        let row = session.seal(&entry).map_err(|error| failures::internal(session.id, &error))?;
        let appended = if sabotage::is_on(Sabotage::AckBeforeWrite) {
            let store = Arc::clone(&sessions.store);
            sabotage::later(async move { drop(store.append(&row).await) });
            Appended::Done
        } else {
            store.append(&row).await.map_err(|error| failures::storage(session.id, &error))?
        };
        match appended {
            Appended::Done => {
                publish(sessions, session, &entry).await;
                return Ok(AppendOutcome::Appended(entry));
            }
            Appended::SeqTaken => {
                catch_up(store, session).await?;
                if session.seq() < seq {
                    // The other writer's entry is stored, but not on a majority yet.
                    tokio::time::sleep(MAJORITY_PAUSE).await;
                }
            }
            Appended::DuplicateMessage => {
                if let Some(first) = sent_before(store, session, draft).await? {
                    if first.meta.seq > session.seq() {
                        // The earlier write was given up before it was done, so it was not published.
                        catch_up(store, session).await?;
                    }
                    return Ok(AppendOutcome::Duplicate(first));
                }
                // The first copy is stored, but not on a majority yet. Only after that may it be acknowledged.
                tokio::time::sleep(MAJORITY_PAUSE).await;
            }
            Appended::AnswerExists | Appended::StreamingExists => return Ok(AppendOutcome::AnswerTaken(appended)),
        }
    }
    Err(ErrorCode::Unavailable.into())
}

async fn publish(sessions: &Sessions, session: &Arc<Session>, entry: &Entry) {
    session.apply(entry);
    summary::save_soon(&sessions.store, &sessions.lifecycle, session);
    if let Err(failure) = read_ends(sessions.store.as_ref(), session).await {
        // The entry is in the log all the same. Reconciling with the store publishes the rest.
        tracing::debug!(session = %session.id, %failure, "the end of an answer was not read yet");
    }
}

/// The entry that an earlier try of this draft has appended.
async fn sent_before(store: &dyn Store, session: &Session, draft: &Draft) -> Result<Option<Entry>, Failure> {
    let (Sender::User(sender) | Sender::Admin(sender)) = &draft.sender else { return Ok(None) };
    let Body::Message { client_msg_id, .. } = &draft.body else { return Ok(None) };
    let row = store.entry_by_client_id(session.id, &sender.id, *client_msg_id).await;
    Ok(row.map_err(|error| failures::storage(session.id, &error))?.map(|row| session.unseal(row)))
}
