//! The one way into a log. A writer appends at last + 1 having seen all that stands before it; if somebody else was
//! faster it reads the winner, asks again whether what it wants is allowed, and tries the next number. What is
//! delivered to those who read along is what the store has taken, in the store's order.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{MessageId, Seq};

use crate::sabotage::{self, Sabotage};
use crate::session::Session;
use crate::session::entry::{Body, Content, Entry, EntryMeta, EntryState, Sender};
use crate::session::live::Applied;
use crate::session::registry::Sessions;
use crate::session::state::{Allowed, Intent};
use crate::store::{Appended, EntryRow};

/// How many entries are read at once when catching up with the store.
const CATCH_UP_PAGE: u32 = 200;
/// How long to wait for a majority to have what one member has.
const MAJORITY_PAUSE: Duration = Duration::from_millis(20);
/// How often a writer tries the next number before it reports a fault; each failure means another writer succeeded.
const MAX_TRIES: usize = 1000;

/// An entry before it has a place in the log.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its id.
    pub id: MessageId,
    /// Final, or streaming for an answer.
    pub state: EntryState,
    /// Who says it.
    pub sender: Sender,
    /// What it is. `needs_answer` of a message is decided when it is appended.
    pub body: Body,
    /// What is said.
    pub content: String,
}

impl Draft {
    /// A final entry with a new id.
    pub fn new(sender: Sender, body: Body, content: String) -> Self {
        Self { id: MessageId::generate(), state: EntryState::Final, sender, body, content }
    }

    fn at(&self, session: &Session, seq: Seq, now: chatbox_shared::clock::Timestamp) -> Entry {
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

/// What became of a draft.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is in the log, durably, and was delivered.
    Appended(Entry),
    /// What it says is so already; nothing was written.
    AlreadySo,
    /// The sender's entry with this client id is in the log already.
    Duplicate(Entry),
    /// The answer exists, or another one is streaming; nothing was written.
    AnswerTaken(Appended),
}

impl Sessions {
    /// Appends the draft, if the log up to its end allows the intent.
    ///
    /// # Errors
    /// What the intent lacks, or that the store cannot be reached; then whether it was written is not known, and the
    /// same draft may be tried again.
    pub async fn append(&self, session: &Arc<Session>, intent: Intent<'_>, draft: &Draft) -> Result<Outcome, Failure> {
        let _turn = session.writer.lock().await;
        if session.read(|live| live.erased) {
            return Err(ErrorCode::NotFound.into());
        }
        let unsure = self.unsure(session);
        let mut fresh = false;
        for _ in 0..MAX_TRIES {
            let (seq, allowed) = session.read(|live| (live.state.seq + 1, live.state.allows(intent)));
            match allowed {
                Ok(Allowed::Append) => {}
                // What is known here may be older than the log: nothing is refused before it was looked at.
                _ if !fresh => {
                    self.catch_up(session).await?;
                    fresh = true;
                    continue;
                }
                Ok(Allowed::AlreadySo) => return Ok(unsure.settled(Outcome::AlreadySo)),
                Err(denied) => return self.sent_before(session, draft).await?.map(Outcome::Duplicate).ok_or(denied),
            }
            let entry = draft.at(session, seq, self.now());
            let row = session.seal(&entry).map_err(|error| self.internal(session, &error))?;
            let appended = if sabotage::is_on(Sabotage::AckBeforeWrite) {
                sabotage::write_later(&self.store, row);
                Appended::Done
            } else {
                self.store.append(&row).await.map_err(|error| self.storage(session, &error))?
            };
            match appended {
                Appended::Done => {
                    session.apply(&entry);
                    self.summary_changed(session);
                    if let Err(failure) = self.read_ends(session).await {
                        // The entry is in the log; the comparison with the store shows the rest.
                        tracing::debug!(session = %session.id, %failure, "the end of an answer was not read yet");
                    }
                    return Ok(unsure.settled(Outcome::Appended(entry)));
                }
                Appended::SeqTaken => {
                    self.catch_up(session).await?;
                    if session.seq() < seq {
                        // The winner is there but not on a majority yet.
                        tokio::time::sleep(MAJORITY_PAUSE).await;
                    }
                }
                Appended::DuplicateMessage => {
                    if let Some(first) = self.sent_before(session, draft).await? {
                        if first.meta.seq > session.seq() {
                            // Its own write was given up on before it was done: nobody has been shown it yet.
                            self.catch_up(session).await?;
                        }
                        return Ok(unsure.settled(Outcome::Duplicate(first)));
                    }
                    // The first copy is there but not on a majority yet: only then may it be acknowledged.
                    tokio::time::sleep(MAJORITY_PAUSE).await;
                }
                Appended::AnswerExists | Appended::StreamingExists => {
                    return Ok(unsure.settled(Outcome::AnswerTaken(appended)));
                }
            }
        }
        Err(ErrorCode::Unavailable.into())
    }

    /// The entry an earlier try of this draft made.
    async fn sent_before(&self, session: &Session, draft: &Draft) -> Result<Option<Entry>, Failure> {
        let (Sender::User(sender) | Sender::Admin(sender)) = &draft.sender else { return Ok(None) };
        let Body::Message { client_msg_id, .. } = &draft.body else { return Ok(None) };
        let row = self.store.entry_by_client_id(session.id, &sender.id, *client_msg_id).await;
        Ok(row.map_err(|error| self.storage(session, &error))?.map(|row| session.unseal(row)))
    }

    /// Reads what others have appended, and what became of an answer that was growing, and delivers it.
    ///
    /// # Errors
    /// Where the store cannot be reached.
    pub async fn catch_up(&self, session: &Session) -> Result<(), Failure> {
        if let Some(seq) = session.read(|live| live.streaming.as_ref().map(|entry| entry.meta.seq)) {
            self.read_again(session, seq).await?;
        }
        loop {
            let rows = self.store.entries_after(session.id, session.seq(), CATCH_UP_PAGE).await;
            let rows = rows.map_err(|error| self.storage(session, &error))?;
            let more = rows.len() == CATCH_UP_PAGE as usize;
            self.apply_rows(session, rows);
            if !more {
                return self.read_ends(session).await;
            }
        }
    }

    /// Reads the ends of answers that grew on another brain until a newer one began.
    async fn read_ends(&self, session: &Session) -> Result<(), Failure> {
        let unseen = session.read(|live| live.ended_unseen.clone());
        for (seq, _) in unseen {
            self.read_again(session, seq).await?;
        }
        Ok(())
    }

    /// Reads what became of the answer at `seq` and delivers it.
    ///
    /// # Errors
    /// Where the store cannot be reached.
    pub(crate) async fn read_again(&self, session: &Session, seq: Seq) -> Result<(), Failure> {
        let row = self.store.entry(session.id, seq).await.map_err(|error| self.storage(session, &error))?;
        self.apply_rows(session, row.into_iter().collect());
        Ok(())
    }

    /// Gives rows read from the log, ascending, to the session.
    pub(crate) fn apply_rows(&self, session: &Session, rows: Vec<EntryRow>) {
        for row in rows {
            if session.apply(&session.unseal(row)) == Applied::Gap {
                // Rows come ascending from after the last known seq, so this means a hole in the stored log itself.
                tracing::error!(session = %session.id, "the stored log has a gap");
                return;
            }
        }
    }
}
