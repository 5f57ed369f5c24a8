//! The sessions that a connection has open. Kept so that another brain can continue exactly where the client is.

mod progress;

use chatbox_shared::proto;
use chatbox_shared::proto::client_message::Message as Request;
use chatbox_shared::proto::server_message::Message;
use smallvec::SmallVec;
use uuid::Uuid;

pub(super) use progress::Verdict;
use progress::{Epoch, SessionProgress};

/// The open sessions. Most connections have none or one.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions(SmallVec<[SessionProgress; 1]>);

impl Sessions {
    /// Records a message that is due for the client now, and decides whether it is sent.
    pub(super) fn observe(&mut self, message: &Message) -> Verdict {
        match message {
            Message::Entry(event) => match (self.get(&event.session_id), &event.entry) {
                (Some(open), Some(entry)) => open.entry(entry),
                _ => Verdict::Send,
            },
            Message::AiDelta(delta) => self.observe_delta(delta),
            Message::Notice(notice) if notice.code == "session_deleted" => {
                self.closed(&notice.session_id);
                Verdict::Send
            }
            // A brain ends every replay with `session_ready`, also the replay after a move. The client receives only
            // the first.
            Message::SessionReady(ready) => match self.get(&ready.session_id) {
                Some(open) => open.ready(),
                None => Verdict::Send,
            },
            _ => Verdict::Send,
        }
    }

    /// [`Sessions::observe`] for a delta.
    pub(super) fn observe_delta(&mut self, delta: &proto::AiDelta) -> Verdict {
        match self.get(&delta.session_id) {
            Some(open) => open.delta(delta),
            None => Verdict::Send,
        }
    }

    /// Records the reply to a request. A replied open adds a session, a replied close or delete removes it.
    pub(super) fn replied(&mut self, request: &Request, reply: Option<&Message>) {
        if matches!(reply, Some(Message::Error(_))) {
            return;
        }
        match (request, reply) {
            (Request::SessionOpen(open), Some(Message::Session(info))) => {
                self.opened(&open.session_id, open.after_seq, info, false);
            }
            (Request::AdminWatch(watch), Some(Message::Session(info))) => {
                self.opened(&watch.session_id, watch.after_seq, info, true);
            }
            // A replay from the start follows, even if the session was already open.
            (Request::AdminJoin(join), Some(Message::Session(info))) => self.opened(&join.session_id, 0, info, true),
            (Request::SessionClose(proto::SessionClose { session_id }), _)
            | (Request::SessionDelete(proto::SessionDelete { session_id }), _) => self.closed(session_id),
            _ => {}
        }
    }

    fn opened(&mut self, id: &str, after: u64, info: &proto::SessionInfo, watch: bool) {
        let Ok(uuid) = Uuid::try_parse(id) else { return };
        let after = if info.reset { 0 } else { after };
        let epoch = info.session.as_ref().map_or_else(|| Epoch::of(""), |session| Epoch::of(&session.epoch));
        // The replay begins with the entry `truncated_before`.
        let from = after.max(info.truncated_before.saturating_sub(1));
        let opened = SessionProgress::new(uuid, epoch, from, watch);
        match self.0.iter_mut().find(|open| open.id == uuid) {
            Some(open) => *open = opened,
            None => self.0.push(opened),
        }
    }

    fn closed(&mut self, id: &str) {
        if let Ok(id) = Uuid::try_parse(id) {
            self.0.retain(|open| open.id != id);
        }
        if self.0.is_empty() {
            self.0 = SmallVec::new();
        }
    }

    fn get(&mut self, id: &str) -> Option<&mut SessionProgress> {
        if self.0.is_empty() {
            return None;
        }
        let id = Uuid::try_parse(id).ok()?;
        self.0.iter_mut().find(|open| open.id == id)
    }

    /// What another brain must know to continue.
    pub(super) fn resume(&self) -> Vec<proto::Resume> {
        self.0.iter().map(SessionProgress::resume).collect()
    }
}

#[cfg(test)]
mod tests;
