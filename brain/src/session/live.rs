//! A session in memory: the fold of its log, the answer that is growing, and the connections that read along. Everything
//! is delivered under one lock, so all of them see the same things in the same order.

use std::sync::Arc;

use bytes::Bytes;
use chatbox_shared::ids::Seq;
use chatbox_shared::proto::{self, ServerMessage, server_message::Message};
use prost::Message as _;
use smallvec::SmallVec;

use crate::connection::Connection;
use crate::grpc::convert;
use crate::grpc::outbox::Outbox;
use crate::ledger::UsageSum;
use crate::session::Session;
use crate::session::entry::{Entry, EntryMeta, EntryState};
use crate::store::{Responses, Summary};

/// What is known and who reads along.
pub struct Live {
    /// The fold of the log; `state.seq` is the last entry that was delivered.
    pub state: Summary,
    /// In the clear; empty while it has none.
    pub name: String,
    /// Up to where the owner has read.
    pub read_seq: Seq,
    /// The sum of the session's records in the ledger, as this brain knows it.
    pub usage: UsageSum,
    /// The sum covers this many calls in the store, too.
    pub(crate) usage_saved: u64,
    /// How many answers ended and how long they took.
    pub responses: Responses,
    /// The answer that is growing, as far as this brain has seen it. Boxed: most sessions have none.
    pub streaming: Option<Box<Entry>>,
    /// Answers that another brain has ended, since a newer one stands behind them, whose end was not read yet: seq and
    /// the rev that was shown.
    pub(crate) ended_unseen: Vec<(Seq, u32)>,
    /// Those who have caught up and get everything live.
    subscribers: SmallVec<[Arc<Connection>; 1]>,
    /// A save of the summary is due; see `session::summary`.
    pub(crate) save_pending: bool,
    /// The read marker the store has.
    pub(crate) read_saved: Seq,
    /// The session was erased here; whoever still holds it must write nothing more.
    pub(crate) erased: bool,
}

/// What became of an entry that was given to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// New, and delivered.
    Delivered,
    /// Known already.
    Known,
    /// Entries between the last known one and this one are missing; nothing was done.
    Gap,
}

impl Live {
    /// A session as the store says it is, with nobody reading along.
    pub fn new(state: Summary, name: String, read_seq: Seq, usage: UsageSum, responses: Responses) -> Self {
        Self {
            state,
            name,
            read_seq,
            usage_saved: usage.calls,
            usage,
            responses,
            streaming: None,
            ended_unseen: Vec::new(),
            subscribers: SmallVec::new(),
            save_pending: false,
            read_saved: read_seq,
            erased: false,
        }
    }

    /// Takes an entry that is durable in the log: folds it in and delivers it, if it is the next one or a later
    /// revision of the growing answer.
    pub fn apply(&mut self, session: &Session, entry: &Entry) -> Applied {
        let meta = &entry.meta;
        if meta.seq > self.state.seq + 1 {
            return Applied::Gap;
        }
        if meta.seq == self.state.seq + 1 {
            self.state.apply(meta);
            if meta.answer().is_some() {
                // One answer grows at a time, so the one before has ended.
                let before = self.streaming.take();
                self.ended_unseen.extend(before.map(|before| (before.meta.seq, before.meta.rev)));
                self.streaming = (meta.state == EntryState::Streaming).then(|| Box::new(entry.clone()));
            }
        } else if self.grows(meta) {
            self.streaming = (meta.state == EntryState::Streaming).then(|| Box::new(entry.clone()));
        } else if let Some(at) = self.ended_unseen.iter().position(|(seq, rev)| *seq == meta.seq && *rev < meta.rev)
            && meta.state != EntryState::Streaming
        {
            self.ended_unseen.swap_remove(at);
        } else {
            return Applied::Known;
        }
        self.broadcast(&Message::Entry(proto::EntryEvent {
            session_id: session.id.to_string(),
            entry: Some(convert::entry(entry)),
        }));
        Applied::Delivered
    }

    /// Is this a later state of the growing answer?
    fn grows(&self, meta: &EntryMeta) -> bool {
        self.streaming.as_ref().is_some_and(|known| known.meta.seq == meta.seq && known.meta.rev < meta.rev)
    }

    /// Appends text to the growing answer and delivers it. `false`: the answer has moved on (another attempt, or it has
    /// ended) and the text is dropped.
    pub fn delta(&mut self, session: &Session, seq: Seq, fence: u64, attempt: u32, text: &str) -> bool {
        let Some(entry) = self.streaming.as_mut().filter(|entry| entry.meta.seq == seq) else { return false };
        let crate::session::entry::Content::Text(content) = &mut entry.content else { return false };
        let crate::session::entry::Body::Answer(answer) = &mut entry.meta.body else { return false };
        if answer.fence != fence || answer.attempt != attempt {
            return false;
        }
        let index = answer.next_index;
        content.push_str(text);
        answer.next_index += 1;
        self.broadcast(&Message::AiDelta(proto::AiDelta {
            session_id: session.id.to_string(),
            seq,
            attempt,
            index,
            count: 1,
            delta: text.to_owned(),
        }));
        true
    }

    /// Adds a connection that has seen everything up to `state.seq`.
    pub fn subscribe(&mut self, connection: &Arc<Connection>) {
        self.unsubscribe(connection);
        self.subscribers.push(Arc::clone(connection));
    }

    /// Removes a connection.
    pub fn unsubscribe(&mut self, connection: &Connection) {
        self.subscribers.retain(|other| !std::ptr::eq(Arc::as_ptr(other), connection));
    }

    /// Does anybody read along?
    pub fn is_watched(&self) -> bool {
        !self.subscribers.is_empty()
    }

    /// Removes everybody and returns them.
    pub fn take_subscribers(&mut self) -> SmallVec<[Arc<Connection>; 1]> {
        std::mem::take(&mut self.subscribers)
    }

    /// Delivers to everybody.
    pub fn broadcast(&self, message: &Message) {
        self.broadcast_to(message, |_| true);
    }

    /// Delivers to those the filter takes: one frame per link.
    pub fn broadcast_to(&self, message: &Message, filter: impl Fn(&Connection) -> bool) {
        let mut links: SmallVec<[(&Outbox, Vec<u64>); 2]> = SmallVec::new();
        for connection in self.subscribers.iter().filter(|connection| filter(connection)) {
            let outbox = connection.outbox();
            match links.iter_mut().find(|(link, _)| link.same_link(outbox)) {
                Some((_, conns)) => conns.push(connection.conn),
                None => links.push((outbox, vec![connection.conn])),
            }
        }
        if links.is_empty() {
            return;
        }
        let encoded = Bytes::from(ServerMessage { message: Some(message.clone()) }.encode_to_vec());
        for (link, conns) in links {
            link.deliver(conns, encoded.clone(), 0);
        }
    }

    /// Tells everybody what has changed about the session as a whole.
    pub fn broadcast_summary(&self, session: &Session) {
        let session = Some(convert::session(session, self));
        self.broadcast(&Message::Session(proto::SessionInfo { session, truncated_before: 0, reset: false }));
    }
}

impl Session {
    /// Gives the session an entry that is durable in the log.
    pub fn apply(&self, entry: &Entry) -> Applied {
        self.live.lock().apply(self, entry)
    }

    /// Grows the answer at `seq`; see [`Live::delta`].
    pub fn delta(&self, seq: Seq, fence: u64, attempt: u32, text: &str) -> bool {
        self.live.lock().delta(self, seq, fence, attempt, text)
    }
}
