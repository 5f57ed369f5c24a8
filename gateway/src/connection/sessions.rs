//! What one connection has open, and how far its client has received each session's log. Kept to continue exactly there
//! on another brain; small, for every connection has it.
//!
//! The log's order makes this short: entries first appear in the order of their numbers, and all but a streaming answer
//! are final at once. So two numbers say it all: the last entry seen, and the lowest one that is not final yet.

use chatbox_shared::proto::client_message::Message as Request;
use chatbox_shared::proto::server_message::Message;
use chatbox_shared::proto::{self, EntryState};
use smallvec::SmallVec;
use uuid::Uuid;

use crate::sabotage;

/// The sessions a connection has open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions(SmallVec<[Open; 1]>);

#[derive(Debug, Clone)]
struct Open {
    id: Uuid,
    epoch: Epoch,
    /// The client had everything up to here when it opened the session; what became of it is not known here.
    from: u64,
    /// Every entry up to here was received, in some state.
    last_seq: u64,
    /// The lowest of them that is not final; 0: none.
    unfinished: u64,
    /// The newest of the unfinished, as far as it was received.
    streaming: Streaming,
    /// The newest answer that was received in its last form.
    done: Done,
    /// Not as its owner.
    watch: bool,
    /// `session_ready` was received.
    ready: bool,
}

/// An answer of which a part was received; seq 0: none.
#[derive(Debug, Clone, Copy, Default)]
struct Streaming {
    seq: u64,
    next_index: u64,
    attempt: u32,
    rev: u32,
}

/// An answer that was received whole; seq 0: none.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    seq: u64,
    rev: u32,
}

/// An epoch is opaque. Those of 16 hexadecimal digits, as brains make them, need no memory of their own.
#[derive(Debug, Clone)]
enum Epoch {
    Hex(u64),
    Text(Box<str>),
}

impl Epoch {
    fn of(text: &str) -> Self {
        match u64::from_str_radix(text, 16) {
            Ok(number) if format!("{number:016x}") == text => Self::Hex(number),
            _ => Self::Text(text.into()),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Hex(number) => format!("{number:016x}"),
            Self::Text(text) => text.to_string(),
        }
    }
}

/// Should the client get it?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Yes.
    Send,
    /// No, it has it already, or it is about something that is over.
    Drop,
}

impl Sessions {
    /// Takes note of a message that is sent to the client now.
    pub(crate) fn observe(&mut self, message: &Message) -> Verdict {
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
            // A brain ends every replay with it, also the one after a move to it, which the client must not notice.
            Message::SessionReady(ready) => match self.get(&ready.session_id) {
                Some(open) if open.ready => Verdict::Drop,
                Some(open) => {
                    open.ready = true;
                    Verdict::Send
                }
                None => Verdict::Send,
            },
            _ => Verdict::Send,
        }
    }

    /// The same for a delta alone.
    pub(crate) fn observe_delta(&mut self, delta: &proto::AiDelta) -> Verdict {
        match self.get(&delta.session_id) {
            Some(open) => open.delta(delta),
            None => Verdict::Send,
        }
    }

    /// Takes note of a reply.
    pub(crate) fn replied(&mut self, request: &Request, reply: Option<&Message>) {
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
            // A replay from the start follows, also where the session was open before.
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
        // The replay begins at `truncated_before`, so that entry is still to come.
        let from = after.max(info.truncated_before.saturating_sub(1));
        let opened = Open {
            id: uuid,
            epoch,
            from,
            last_seq: from,
            unfinished: 0,
            streaming: Streaming::default(),
            done: Done::default(),
            watch,
            ready: false,
        };
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

    fn get(&mut self, id: &str) -> Option<&mut Open> {
        if self.0.is_empty() {
            return None;
        }
        let id = Uuid::try_parse(id).ok()?;
        self.0.iter_mut().find(|open| open.id == id)
    }

    /// What another brain has to know to continue.
    pub(crate) fn resume(&self) -> Vec<proto::Resume> {
        self.0.iter().map(Open::resume).collect()
    }
}

impl Open {
    /// A brain that this connection moves to sends again what came after the last final entry, and the answer that is
    /// being written as far as it has come. The client gets of it only what it does not have.
    fn entry(&mut self, entry: &proto::Entry) -> Verdict {
        let (attempt, next_index) = entry.answer.as_ref().map_or((0, 0), |answer| (answer.attempt, answer.next_index));
        let sent = Streaming { seq: entry.seq, next_index, attempt, rev: entry.rev };
        let is_streaming = entry.state() == EntryState::Streaming;
        if self.has(&sent, is_streaming) {
            return Verdict::Drop;
        }
        if entry.seq == self.last_seq + 1 {
            self.last_seq = entry.seq;
        }
        if is_streaming {
            self.unfinished = if self.unfinished == 0 { entry.seq } else { self.unfinished.min(entry.seq) };
            self.streaming = sent;
        } else {
            if entry.answer.is_some() && entry.seq >= self.done.seq {
                self.done = Done { seq: entry.seq, rev: entry.rev };
            }
            if self.streaming.seq == entry.seq {
                self.streaming = Streaming::default();
            }
            if self.unfinished == entry.seq {
                self.unfinished = self.streaming.seq;
            }
        }
        Verdict::Send
    }

    /// Has the client received this, or more of it?
    fn has(&self, sent: &Streaming, is_streaming: bool) -> bool {
        if sent.seq == self.streaming.seq {
            let had = &self.streaming;
            let no_more = (sent.rev, sent.attempt, sent.next_index) <= (had.rev, had.attempt, had.next_index);
            return is_streaming && (no_more || sabotage::no_gap_check());
        }
        if sent.seq == self.done.seq {
            return sent.rev <= self.done.rev;
        }
        // Only answers ever get another rev than their first, and of older ones the rev is not known here: where it
        // can be another one the client decides.
        sent.seq > self.from && sent.seq <= self.last_seq && sent.rev <= 1
    }

    /// A delta is due where it continues what was received. Older ones come from a brain that has lost the answer to
    /// another, or were received before a move. A gap is passed on: the client sees it and opens the session again.
    fn delta(&mut self, delta: &proto::AiDelta) -> Verdict {
        let streaming = &mut self.streaming;
        if streaming.seq != delta.seq {
            let over = delta.seq > self.from && delta.seq <= self.last_seq;
            return if over { Verdict::Drop } else { Verdict::Send };
        }
        let end = delta.index + u64::from(delta.count.max(1));
        if delta.attempt < streaming.attempt || (delta.attempt == streaming.attempt && end <= streaming.next_index) {
            return Verdict::Drop;
        }
        if delta.attempt == streaming.attempt && delta.index == streaming.next_index {
            streaming.next_index = end;
        }
        Verdict::Send
    }

    fn resume(&self) -> proto::Resume {
        proto::Resume {
            session_id: self.id.to_string(),
            after_seq: if self.unfinished == 0 { self.last_seq } else { self.last_seq.min(self.unfinished - 1) },
            epoch: self.epoch.to_text(),
            watch: self.watch,
            streaming_seq: self.streaming.seq,
            streaming_attempt: self.streaming.attempt,
            streaming_next_index: self.streaming.next_index,
        }
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
