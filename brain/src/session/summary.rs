//! The session document, which holds what lists show: the summary of the log, the name, the sum of the ledger. Log and ledger
//! are the truth, so it may be written late or not at all: whoever loads the session adds the rest. It is therefore kept off
//! the path of acknowledgements and written once for many entries.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::failure::Failure;
use chatbox_shared::ids::{Seq, SessionId, UserId};
use chatbox_shared::proto::{self, server_message::Message};

use crate::session::Session;
use crate::session::registry::Sessions;

/// How long entries may gather before the summary is saved.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// A session of more messages gets no name any more: somebody may have wanted it to have none.
const YOUNG: u64 = 3;
/// Characters of a name made from a message.
const NAME_CHARS: usize = 60;

impl Sessions {
    /// The log has grown, or the owner has read on: saves the summary soon.
    pub(crate) fn summary_changed(&self, session: &Arc<Session>) {
        if std::mem::replace(&mut session.live.lock().save_pending, true) {
            return;
        }
        let (store, session, drain) = (Arc::clone(&self.store), Arc::clone(session), self.lifecycle.draining().clone());
        self.lifecycle.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(SAVE_AFTER) => {}
                () = drain.cancelled() => {}
            }
            let (state, read_seq) = {
                let mut live = session.live.lock();
                live.save_pending = false;
                (live.state.clone(), (live.read_seq > live.read_saved).then_some(live.read_seq))
            };
            if let Err(error) = store.save_summary(session.id, &state).await {
                tracing::debug!(session = %session.id, %error, "the summary was not saved; the log has it all");
            }
            let Some(read_seq) = read_seq else { return };
            match store.mark_read(session.id, read_seq).await {
                Ok(()) => session.live.lock().read_saved = read_seq,
                Err(error) => tracing::debug!(session = %session.id, %error, "the read marker was not saved"),
            }
        });
    }

    /// Saves the summary now, for a change that lists must show at once.
    pub(crate) async fn save_summary(&self, session: &Session) {
        let state = session.read(|live| live.state.clone());
        if let Err(error) = self.store.save_summary(session.id, &state).await {
            tracing::debug!(session = %session.id, %error, "the summary was not saved; the log has it all");
        }
    }

    /// The owner has read up to here.
    pub(crate) fn mark_read(&self, session: &Arc<Session>, seq: Seq) -> bool {
        let moved = {
            let mut live = session.live.lock();
            let seq = seq.min(live.state.seq);
            let moved = seq > live.read_seq;
            live.read_seq = live.read_seq.max(seq);
            moved
        };
        if moved {
            self.summary_changed(session);
        }
        moved
    }

    /// Gives the session another name.
    ///
    /// # Errors
    /// Where the store cannot be reached.
    pub(crate) async fn rename(&self, session: &Arc<Session>, name: &str) -> Result<(), Failure> {
        let sealed = self.seal_name(session.id, session.key(), name)?;
        let renamed = self.store.rename_session(session.id, &sealed).await;
        if renamed.map_err(|error| self.storage(session, &error))? {
            session.renamed(name);
        }
        Ok(())
    }

    /// Gives the session another name, if it still has this one: a name that a human gave meanwhile stays.
    ///
    /// # Errors
    /// Where the store cannot be reached.
    pub(crate) async fn rename_from(&self, session: &Arc<Session>, from: &str, to: &str) -> Result<(), Failure> {
        let row = self.store.session(session.id).await.map_err(|error| self.storage(session, &error))?;
        let Some(row) = row.filter(|row| row.data_key.is_some()) else { return Ok(()) };
        if self.open_name(&row, session.key()) != from {
            return Ok(());
        }
        let sealed = self.seal_name(session.id, session.key(), to)?;
        let renamed = self.store.replace_name(session.id, &row.name, &sealed).await;
        if renamed.map_err(|error| self.storage(session, &error))? {
            session.renamed(to);
        }
        Ok(())
    }

    /// Counts a finished answer.
    pub(crate) async fn count_answer(&self, session: &Session, took_ms: u64) {
        session.live.lock().responses.add(took_ms);
        if let Err(error) = self.store.add_response(session.id, took_ms).await {
            tracing::warn!(session = %session.id, %error, "a finished answer was not counted");
        }
    }

    /// Asks the ledger what the session has used, and tells those who read along. A sum that does not come is repaired by
    /// the next one, or when the session is loaded again.
    pub(crate) async fn refresh_usage(&self, session: &Session) {
        if self.sum_up(session).await {
            session.read(|live| live.broadcast_summary(session));
        }
    }

    /// Asks the ledger what the session has used, and stores the sum where it is another one; says whether there is one.
    pub(crate) async fn sum_up(&self, session: &Session) -> bool {
        let usage = match self.store.session_usage(session.id).await {
            Ok(usage) => usage,
            Err(error) => {
                tracing::debug!(session = %session.id, %error, "the session's usage was not summed up");
                return false;
            }
        };
        let saved = {
            let mut live = session.live.lock();
            // Records are only ever added: a sum of fewer ones is an older one.
            if usage.calls >= live.usage.calls {
                live.usage = usage;
            }
            live.usage_saved
        };
        if usage.calls <= saved {
            return true;
        }
        match self.store.save_session_usage(session.id, &usage).await {
            Ok(()) => {
                let mut live = session.live.lock();
                live.usage_saved = live.usage_saved.max(usage.calls);
            }
            Err(error) => {
                tracing::debug!(session = %session.id, %error, "the session's usage was not saved; the ledger has it all");
            }
        }
        true
    }

    /// Was this a session of the user that is erased now?
    ///
    /// # Errors
    /// Where the store cannot be reached.
    pub(crate) async fn was_erased(&self, id: SessionId, user: &UserId) -> Result<bool, Failure> {
        let row = self.store.session(id).await.map_err(|error| self.storage_of(id, &error))?;
        Ok(row.is_some_and(|row| row.data_key.is_none() && row.user == *user))
    }

    /// Names the session after its first message, where it has no name. The name is saved behind the acknowledgement.
    pub(crate) fn name_after(self: &Arc<Self>, session: &Arc<Session>, message: &str) {
        let name = name_of(message);
        if name.is_empty() || session.read(|live| !live.name.is_empty() || live.state.message_count > YOUNG) {
            return;
        }
        let (sessions, session) = (Arc::clone(self), Arc::clone(session));
        self.lifecycle.spawn(async move {
            if let Err(failure) = sessions.rename_from(&session, "", &name).await {
                tracing::debug!(session = %session.id, %failure, "the session stays without a name");
            }
        });
    }

    /// Erases the session. Those who read along are told and sent away.
    ///
    /// # Errors
    /// Where the store cannot be reached; the same call may be made again.
    pub(crate) async fn erase(&self, session: &Arc<Session>) -> Result<(), Failure> {
        let _writer = session.writer.lock().await;
        self.store.erase_session(session.id).await.map_err(|error| self.storage(session, &error))?;
        self.forget(session.id);
        let watchers = {
            let mut live = session.live.lock();
            live.erased = true;
            live.broadcast(&Message::Notice(session_deleted(&session.id.to_string())));
            live.take_subscribers()
        };
        for connection in watchers {
            connection.forget(session.id);
        }
        Ok(())
    }
}

impl Session {
    /// The session has another name: everybody is told.
    fn renamed(&self, name: &str) {
        let mut live = self.live.lock();
        name.clone_into(&mut live.name);
        live.broadcast_summary(self);
    }
}

/// The first line of a message, cut at a word where it is long.
pub(crate) fn name_of(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line: String = line.chars().filter(|char| !char.is_control()).collect();
    if line.chars().count() <= NAME_CHARS {
        return line;
    }
    let cut: String = line.chars().take(NAME_CHARS - 1).collect();
    let words = cut.rsplit_once(char::is_whitespace).map_or(cut.as_str(), |(words, _)| words);
    format!("{}…", words.trim_end())
}

/// What those who had the session open are told.
pub(crate) fn session_deleted(session_id: &str) -> proto::Notice {
    proto::Notice {
        code: "session_deleted".into(),
        message: "The session was deleted.".into(),
        session_id: session_id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use chatbox_shared::clock::Timestamp;
    use chatbox_shared::ids::CallId;
    use chatbox_shared::lifecycle::Lifecycle;

    use super::*;
    use crate::ledger::{Call, CallFinish, Purpose, Reservation, UsageSum};
    use crate::store::keyring::Keyring;
    use crate::store::sqlite::SqliteStore;
    use crate::store::{Responses, Store};

    #[tokio::test]
    async fn answers_are_counted_and_usage_is_the_sum_of_the_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&folder.path().join("chat.db")).unwrap());
        store.migrate().await.unwrap();
        let keyring = Keyring::parse(&Keyring::generate_line("k1").unwrap(), None).unwrap();
        let sessions = Sessions::new(store.clone(), keyring, Lifecycle::new());
        let user = UserId::new("user");
        let session = sessions.create(SessionId::generate(), &user, "m".into(), "").await.unwrap().unwrap();
        let call = Call {
            id: CallId::generate(),
            user,
            session: session.id,
            purpose: Purpose::Answer,
            seq: 2,
            attempt: 1,
            model_id: "m".into(),
            provider: "demo".into(),
            started_at: Timestamp(0),
        };
        let reservation = Reservation { call, tokens: 9, cost: 0, input_estimate: 5, expires_at: Timestamp(9) };
        store.record_usage(&reservation.lost(3, CallFinish::Lost, None, Timestamp(7))).await.unwrap();
        sessions.count_answer(&session, 40).await;
        sessions.refresh_usage(&session).await;
        let usage = UsageSum { calls: 1, input: 5, cached: 0, output: 3, cost: 0 };
        let responses = Responses { count: 1, ms_sum: 40, ms_max: 40 };
        assert_eq!(session.read(|live| (live.usage, live.responses)), (usage, responses));
        let row = store.session(session.id).await.unwrap().unwrap();
        assert_eq!((row.usage, row.responses), (usage, responses));

        // One of more calls, which another brain has told of, stays.
        let newer = UsageSum { calls: 2, ..usage };
        session.live.lock().usage = newer;
        sessions.refresh_usage(&session).await;
        assert_eq!(session.read(|live| live.usage), newer);
    }

    #[test]
    fn a_name_is_the_first_line_cut_at_a_word() {
        assert_eq!(name_of("\n  Where do swifts sleep?\nAnd when?"), "Where do swifts sleep?");
        assert_eq!(name_of(" \n\t"), "");
        let long = name_of(&"swift ".repeat(40));
        assert!(long.ends_with("swift…") && long.chars().count() <= NAME_CHARS, "{long}");
        let unbroken = name_of(&"鳥".repeat(200));
        assert_eq!(unbroken.chars().count(), NAME_CHARS);
    }
}
