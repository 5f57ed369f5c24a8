//! How far a client has received the log of one session.
//!
//! Entries first appear in the order of their numbers, and every entry but a streaming answer is final at once. So two
//! numbers are enough: the last entry received, and the lowest received entry that is not final.

use chatbox_shared::proto::{self, EntryState};
use uuid::Uuid;

use crate::sabotage::{self, Sabotage};

/// The progress of one open session. Small, because connections keep it for as long as they live.
#[derive(Debug, Clone)]
pub(super) struct SessionProgress {
    pub(super) id: Uuid,
    epoch: Epoch,
    /// The client had the entries up to this number when it opened the session. Their revisions are not known here.
    from: u64,
    /// Every entry up to this number was received, in any state.
    last_seq: u64,
    /// The lowest received entry that is not final; 0: none.
    unfinished: u64,
    /// The newest entry that is not final, and how much of it was received.
    streaming: Streaming,
    /// The newest answer that was received in its final form.
    done: Done,
    /// Opened by an admin, not by the owner.
    watch: bool,
    /// `session_ready` was received.
    ready: bool,
}

/// An answer that was received in part; seq 0: none.
#[derive(Debug, Clone, Copy, Default)]
struct Streaming {
    seq: u64,
    next_index: u64,
    attempt: u32,
    rev: u32,
}

/// An answer that was received completely; seq 0: none.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    seq: u64,
    rev: u32,
}

/// An epoch, which is opaque. Brains use 16 hexadecimal digits; these need no memory of their own.
#[derive(Debug, Clone)]
pub(super) enum Epoch {
    Hex(u64),
    Text(Box<str>),
}

impl Epoch {
    /// The epoch with this text.
    pub(super) fn of(text: &str) -> Self {
        match u64::from_str_radix(text, 16) {
            Ok(number) if format!("{number:016x}") == text => Self::Hex(number),
            _ => Self::Text(text.into()),
        }
    }

    /// The text of the epoch.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::Hex(number) => format!("{number:016x}"),
            Self::Text(text) => text.to_string(),
        }
    }
}

/// Whether a message is sent to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The message is sent.
    Send,
    /// The client has received the content already, or the content is outdated.
    Drop,
}

impl SessionProgress {
    /// A session that was just opened: the client has the entries up to `from`.
    pub(super) fn new(id: Uuid, epoch: Epoch, from: u64, watch: bool) -> Self {
        Self {
            id,
            epoch,
            from,
            last_seq: from,
            unfinished: 0,
            streaming: Streaming::default(),
            done: Done::default(),
            watch,
            ready: false,
        }
    }

    /// Records `session_ready`, which is sent once.
    pub(super) fn ready(&mut self) -> Verdict {
        if std::mem::replace(&mut self.ready, true) { Verdict::Drop } else { Verdict::Send }
    }

    /// Records an entry. After a move the new brain sends the entries after the last final one again, and the streaming
    /// answer as far as it has come. The client receives only what it does not have.
    pub(super) fn entry(&mut self, entry: &proto::Entry) -> Verdict {
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

    /// Whether the client has received this state of the entry, or a later one.
    fn has(&self, sent: &Streaming, is_streaming: bool) -> bool {
        if sent.seq == self.streaming.seq {
            let had = &self.streaming;
            let no_more = (sent.rev, sent.attempt, sent.next_index) <= (had.rev, had.attempt, had.next_index);
            return is_streaming && (no_more || sabotage::is_on(Sabotage::NoGapCheck));
        }
        if sent.seq == self.done.seq {
            return sent.rev <= self.done.rev;
        }
        // Only answers get another revision than their first. The revision of an older answer is not known here; if it
        // may be newer, the entry is sent and the client decides.
        sent.seq > self.from && sent.seq <= self.last_seq && sent.rev <= 1
    }

    /// Records a delta. It is sent if it continues what was received. An older delta was received before a move, or comes
    /// from a brain that has lost the answer to another brain. A gap is sent, too: the client detects it and opens the
    /// session again.
    pub(super) fn delta(&mut self, delta: &proto::AiDelta) -> Verdict {
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

    /// What another brain must know about the session.
    pub(super) fn resume(&self) -> proto::Resume {
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
