//! The outbound queue of one connection, between everybody who has something for it and the one task that owns its
//! socket. Pushing never waits.
//!
//! **Bound.** Events may hold `limit` bytes. One more, and the connection is closed with 4008: the client can come back
//! and resume, while waiting for it would make others wait or fill the memory. Before it comes to that, deltas that
//! wait are merged with the delta they continue. Replies and the gateway's own frames are bounded by what the client
//! asks: with `limit` bytes of anything waiting its socket is not read (see [`Outbound::is_full`]), so only the replies to
//! what it asked before can follow. Where these make it more than [`REPLY_FACTOR`] times `limit`, that is 4008 as well.
//!
//! **Order.** One queue: what was pushed first is sent first, whatever its kind.
//!
//! **Size.** Most connections are idle most of the time. An empty queue owns no memory outside of this struct.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use chatbox_shared::proto::server_message::Message;
use chatbox_shared::proto::{AiDelta, ServerMessage};
use parking_lot::Mutex;
use prost::Message as _;
use tungstenite::Utf8Bytes;

use super::close::CloseCode;
use super::event::Event;
use crate::metrics::Metrics;

/// With fewer items waiting than this, deltas are not merged: the socket keeps up, and an event that is sent as it is
/// shares its JSON with the other connections.
const MERGE_FROM: usize = 8;
/// How many items from the end the delta may stand that a new one is merged into.
const MERGE_REACH: usize = 16;
/// How many times the bound everything together may hold, with the replies to what was asked before it was reached.
const REPLY_FACTOR: usize = 4;
/// What an item costs beside its text.
const ITEM_BYTES: usize = 64;

/// What waits for the socket.
#[derive(Debug)]
pub(crate) enum Item {
    /// An event, and the receipt to give once it has left (0: none).
    Event {
        /// Shared with the other connections it is for.
        event: Arc<Event>,
        /// Which receipt.
        receipt: u64,
    },
    /// Several deltas in one.
    Merged(Box<AiDelta>),
    /// The reply to a request, bare where there is no message.
    Reply {
        /// Which request.
        no: u32,
        /// What the brain answered.
        message: Option<Box<ServerMessage>>,
    },
    /// A frame of the gateway itself.
    Text(Utf8Bytes),
    /// A protocol ping.
    Ping,
}

/// What the connection's task is told outside of the queue's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Send what waits, then close.
    Close(CloseCode),
    /// The link in use is gone or going, or one has come: look for a better one.
    Relink,
}

/// The queue. The connection's task and the roster share it; nothing else does.
#[derive(Debug)]
pub(crate) struct Outbound {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Item>,
    event_bytes: usize,
    other_bytes: usize,
    /// The link whose frames are taken; 0: none. Whatever an earlier link still says is refused here, so nothing old
    /// is delivered after the move to another brain.
    link: u64,
    relink: bool,
    close: Option<CloseCode>,
    /// A close was asked for: nothing more is taken.
    closed: bool,
    waker: Option<Waker>,
}

impl Outbound {
    /// An empty queue for at most `limit` bytes of events, and [`REPLY_FACTOR`] times as many of everything.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Queues an event from a link.
    pub(crate) fn push_event(&self, link: u64, event: &Arc<Event>, receipt: u64, metrics: &Metrics) {
        let mut state = self.state.lock();
        if state.closed || state.link != link {
            return;
        }
        let (events_before, before) = (state.event_bytes, state.bytes());
        if receipt == 0 && state.merge(event.message()) {
            metrics.merged_deltas.inc();
        } else {
            state.push(Item::Event { event: Arc::clone(event), receipt });
        }
        // One event alone may be larger than the bound: there is no other way to send it.
        if (events_before > 0 && state.event_bytes > self.limit) || self.is_overfull(&state, before) {
            state.give_up(metrics);
        }
        state.wake();
    }

    /// Queues a reply from a link.
    pub(crate) fn push_reply(&self, link: u64, no: u32, message: Option<ServerMessage>, metrics: &Metrics) {
        let mut state = self.state.lock();
        if state.closed || state.link != link {
            return;
        }
        let before = state.bytes();
        state.push(Item::Reply { no, message: message.map(Box::new) });
        if self.is_overfull(&state, before) {
            state.give_up(metrics);
        }
        state.wake();
    }

    /// Is it more than may wait at all? One item alone, with `before` being 0, may be that large.
    fn is_overfull(&self, state: &State, before: usize) -> bool {
        before > 0 && state.bytes() > self.limit.saturating_mul(REPLY_FACTOR)
    }

    /// Queues something of the gateway's own.
    pub(crate) fn push_own(&self, item: Item) {
        let mut state = self.state.lock();
        if !state.closed {
            state.push(item);
            state.wake();
        }
    }

    /// Closes the connection after what waits and this notice were sent. The first close counts.
    pub(crate) fn close(&self, code: CloseCode, notice: Option<Utf8Bytes>) {
        let mut state = self.state.lock();
        if !state.closed {
            state.queue.extend(notice.map(Item::Text));
            state.close(code);
            state.wake();
        }
    }

    /// The same for a brain, where it is the one in use.
    pub(crate) fn close_from(&self, link: u64, code: CloseCode, notice: Option<Utf8Bytes>) {
        if self.state.lock().link == link {
            self.close(code, notice);
        }
    }

    /// Tells the task to look for another link, unless the one it uses satisfies `good`.
    pub(crate) fn relink_unless(&self, good: impl Fn(u64) -> bool) {
        let mut state = self.state.lock();
        if !state.closed && !good(state.link) {
            state.relink = true;
            state.wake();
        }
    }

    /// Takes frames from this link and no other from now on. `visit` sees what still waits: the client will have
    /// received it before anything the new link says. Receipts are no longer given for it: their numbers mean something
    /// else to another brain, or nothing.
    pub(crate) fn switch<T>(&self, link: u64, visit: impl FnOnce(&mut dyn Iterator<Item = &Item>) -> T) -> T {
        let mut state = self.state.lock();
        state.link = link;
        state.relink = false;
        for item in &mut state.queue {
            if let Item::Event { receipt, .. } = item {
                *receipt = 0;
            }
        }
        visit(&mut state.queue.iter())
    }

    /// The next signal; the task is woken when there is another one, or an item.
    pub(crate) fn poll_signal(&self, context: &Context<'_>) -> Option<Signal> {
        let mut state = self.state.lock();
        if let Some(code) = state.close.take() {
            return Some(Signal::Close(code));
        }
        if std::mem::take(&mut state.relink) {
            return Some(Signal::Relink);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        None
    }

    /// The item to send next.
    pub(crate) fn pop(&self) -> Option<Item> {
        let mut state = self.state.lock();
        let Some(item) = state.queue.pop_front() else {
            if state.queue.capacity() > 0 {
                state.queue = VecDeque::new();
            }
            return None;
        };
        let bytes = item.bytes();
        if item.is_event() {
            state.event_bytes = state.event_bytes.saturating_sub(bytes);
        } else {
            state.other_bytes = state.other_bytes.saturating_sub(bytes);
        }
        Some(item)
    }

    /// Does so much wait that the client should read before it asks for more?
    pub(crate) fn is_full(&self) -> bool {
        self.state.lock().bytes() >= self.limit
    }
}

impl State {
    fn push(&mut self, item: Item) {
        let bytes = item.bytes();
        if item.is_event() {
            self.event_bytes += bytes;
        } else {
            self.other_bytes += bytes;
        }
        self.queue.push_back(item);
    }

    fn bytes(&self) -> usize {
        self.event_bytes + self.other_bytes
    }

    /// Closes a connection whose client does not read, and drops what waits for it.
    fn give_up(&mut self, metrics: &Metrics) {
        metrics.slow_closes.inc();
        self.queue = VecDeque::new();
        (self.event_bytes, self.other_bytes) = (0, 0);
        self.close(CloseCode::TOO_SLOW);
    }

    fn close(&mut self, code: CloseCode) {
        self.closed = true;
        self.close = Some(code);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Adds a delta to the waiting one it continues. Only deltas of other answers may stand between the two.
    fn merge(&mut self, message: &Message) -> bool {
        let Message::AiDelta(new) = message else { return false };
        if self.queue.len() < MERGE_FROM {
            return false;
        }
        for item in self.queue.iter_mut().rev().take(MERGE_REACH) {
            let Some(waiting) = item.mergeable() else { return false };
            if waiting.session_id != new.session_id {
                continue;
            }
            if !continues(waiting, new) {
                return false;
            }
            let before = item.bytes();
            item.append(new);
            self.event_bytes = self.event_bytes + item.bytes() - before;
            return true;
        }
        false
    }
}

/// Is `new` the very next delta of the same attempt of the same answer?
fn continues(waiting: &AiDelta, new: &AiDelta) -> bool {
    waiting.seq == new.seq
        && waiting.attempt == new.attempt
        && waiting.index + u64::from(waiting.count.max(1)) == new.index
}

impl Item {
    /// What it counts in the queue. Must not change while it waits, but by a merge.
    fn bytes(&self) -> usize {
        ITEM_BYTES
            + match self {
                Self::Event { event, .. } => event.size(),
                Self::Merged(delta) => delta.encoded_len(),
                Self::Reply { message, .. } => message.as_ref().map_or(0, |message| message.encoded_len()),
                Self::Text(text) => text.len(),
                Self::Ping => 0,
            }
    }

    fn is_event(&self) -> bool {
        matches!(self, Self::Event { .. } | Self::Merged(_))
    }

    /// The delta this is, if it may grow.
    fn mergeable(&self) -> Option<&AiDelta> {
        match self {
            Self::Event { event, receipt: 0 } => match event.message() {
                Message::AiDelta(delta) => Some(delta),
                _ => None,
            },
            Self::Merged(delta) => Some(delta),
            _ => None,
        }
    }

    fn append(&mut self, new: &AiDelta) {
        let count = new.count.max(1);
        if let Self::Merged(delta) = self {
            delta.count += count;
            delta.delta.push_str(&new.delta);
        } else if let Some(delta) = self.mergeable() {
            let mut delta = delta.clone();
            delta.count = delta.count.max(1) + count;
            delta.delta.push_str(&new.delta);
            *self = Self::Merged(Box::new(delta));
        }
    }
}

#[cfg(test)]
#[path = "outbound_tests.rs"]
mod tests;
