//! A session in use on this brain: its identity, its data key, and its [`Live`] part behind a lock. Everything that must last
//! is in the store; this is the stored log, folded, with those who follow it.

use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{Seq, SessionId, UserId};
use parking_lot::Mutex;

use super::audience::{Recipients, Subscriber};
use super::event::SessionEvent;
use super::live::{Applied, Live};
use super::view::SessionView;
use crate::log::entry::{Body, Content, Entry, FinishReason};
use crate::store::EntryRow;
use crate::store::cipher::{CipherError, SessionKey};

/// A session, shared by everything on this brain that uses it.
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The user it belongs to.
    pub owner: UserId,
    /// Distinguishes this log from an earlier log with the same id.
    pub epoch: String,
    /// When it was created.
    pub started_at: Timestamp,
    key: SessionKey,
    /// Lets one writer of this brain at a time append. Between brains the store's unique keys decide; the lock only saves
    /// conflicts within a brain.
    pub(super) writer: tokio::sync::Mutex<()>,
    pub(super) live: Mutex<Live>,
}

/// What identifies a session and never changes.
pub(super) struct Identity {
    pub(super) id: SessionId,
    pub(super) owner: UserId,
    pub(super) epoch: String,
    pub(super) started_at: Timestamp,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(identity: Identity, key: SessionKey, live: Live) -> Self {
        let Identity { id, owner, epoch, started_at } = identity;
        Self { id, owner, epoch, started_at, key, writer: tokio::sync::Mutex::new(()), live: Mutex::new(live) }
    }

    /// The data key.
    pub(super) fn key(&self) -> &SessionKey {
        &self.key
    }

    /// Reads the live state under its lock. `read` must not lock the same session again.
    pub fn read<T>(&self, read: impl FnOnce(&Live) -> T) -> T {
        read(&self.live.lock())
    }

    /// The last entry this brain knows of.
    pub fn seq(&self) -> Seq {
        self.live.lock().state.seq
    }

    /// The session as participants see it now.
    pub fn view(&self) -> SessionView {
        self.view_of(&self.live.lock())
    }

    /// As [`Session::view`], for a caller that holds the lock.
    pub(super) fn view_of(&self, live: &Live) -> SessionView {
        SessionView {
            id: self.id,
            epoch: self.epoch.clone(),
            started_at: self.started_at,
            name: live.name.clone(),
            summary: live.state.clone(),
            read_seq: live.read_seq,
            usage: live.usage,
        }
    }

    /// Gives the session an entry that is durable in the log; see [`Live`].
    pub fn apply(&self, entry: &Entry) -> Applied {
        self.live.lock().apply(entry)
    }

    /// Why the log forbids the answer at `seq` to grow on. `None`: it may grow.
    pub fn ended_by_log(&self, seq: Seq) -> Option<FinishReason> {
        self.live.lock().ended_by_log(seq)
    }

    /// Appends text to the growing answer at `seq` and publishes it. Text of an old fence or attempt is dropped, and text of an
    /// answer that the log forbids to grow on. Returns whether the text was published.
    pub fn delta(&self, seq: Seq, fence: u64, attempt: u32, text: &str) -> bool {
        self.live.lock().delta(seq, fence, attempt, text)
    }

    /// Publishes an event.
    pub fn publish(&self, event: SessionEvent<'_>, to: Recipients<'_>) {
        self.live.lock().publish(event, to);
    }

    /// Tells all subscribers the state of the session as a whole.
    pub fn publish_view(&self) {
        let live = self.live.lock();
        if live.is_followed() {
            live.publish(SessionEvent::Changed(&self.view_of(&live)), Recipients::Everyone);
        }
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, subscriber: &dyn Subscriber) {
        self.live.lock().unsubscribe(subscriber);
    }

    /// The row of an entry, with its content encrypted for exactly this place in the log.
    ///
    /// # Errors
    /// If encryption fails, or if the content could not be read and so must not be written back.
    pub(crate) fn seal(&self, entry: &Entry) -> Result<EntryRow, CipherError> {
        let content = match &entry.content {
            Content::Text(text) if text.is_empty() && matches!(entry.meta.body, Body::Event(_)) => Vec::new(),
            Content::Text(text) => self.key.seal_content(self.id, entry.meta.seq, text)?,
            Content::Unreadable => {
                return Err(CipherError::Damaged { session: self.id, seq: entry.meta.seq, field: "ct" });
            }
        };
        Ok(EntryRow { meta: entry.meta.clone(), content })
    }

    /// The entry of a row. If its content does not decrypt, the entry is marked as unreadable and the error is logged.
    pub(crate) fn unseal(&self, row: EntryRow) -> Entry {
        // Only an event may have no content: a message without ciphertext has lost it and is not an empty message.
        let opened = match &row.meta.body {
            Body::Event(_) if row.content.is_empty() => Ok(String::new()),
            _ => self.key.open_content(self.id, row.meta.seq, &row.content),
        };
        let content = match opened {
            Ok(text) => Content::Text(text),
            Err(error) => {
                tracing::error!(session = %self.id, seq = row.meta.seq, %error, "stored content cannot be read");
                Content::Unreadable
            }
        };
        Entry { meta: row.meta, content }
    }
}
