//! Saving the summary of a session after its log has grown. The log is the truth, so this may come late or not at all:
//! whoever loads the session folds the rest in. It is therefore kept off the path of acknowledgements and done once for
//! many entries.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::failure::Failure;
use chatbox_shared::ids::Seq;
use chatbox_shared::proto::{self, server_message::Message};

use crate::session::Session;
use crate::session::registry::Sessions;
use crate::store::Totals;

/// How long entries may gather before the summary is saved.
const SAVE_AFTER: Duration = Duration::from_millis(250);

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
            let mut live = session.live.lock();
            name.clone_into(&mut live.name);
            live.broadcast_summary(session);
        }
        Ok(())
    }

    /// Counts a finished answer.
    pub(crate) async fn count_answer(&self, session: &Arc<Session>, answer: &Totals) {
        session.count_answer(answer);
        if let Err(error) = self.store.add_totals(session.id, answer).await {
            tracing::warn!(session = %session.id, %error, "an answer's usage was not added to the session's totals");
        }
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
            live.broadcast(&Message::Notice(proto::Notice {
                code: "session_deleted".into(),
                message: "The session was deleted.".into(),
                session_id: session.id.to_string(),
            }));
            live.take_subscribers()
        };
        for connection in watchers {
            connection.forget(session.id);
        }
        Ok(())
    }
}
