//! The send queue of one connection: the registry and the connection itself add to it, the connection's task alone takes
//! from it and owns the socket. Adding never waits.
//!
//! **Bound.** Events may hold `limit` bytes. One event more closes the connection with 4008: the client can connect again
//! and resume, while waiting for the client would delay other connections or fill the memory. Before the bound is
//! reached, waiting deltas are merged with the deltas they continue. Replies and the gateway's own frames are bounded by
//! the client's requests: with `limit` bytes of anything waiting its socket is not read (see [`SendQueue::is_full`]), so
//! only replies to earlier requests can follow. More than [`REPLY_FACTOR`] times `limit` in total closes with 4008, too.
//!
//! **Order.** First in, first out, whatever the kind of item.
//!
//! **Size.** Most connections are idle most of the time. An empty queue owns no memory outside of this struct.

mod close;
mod event;
mod item;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use chatbox_shared::proto::ServerMessage;
use chatbox_shared::proto::server_message::Message;
use parking_lot::Mutex;
use tungstenite::Utf8Bytes;

pub use close::CloseCode;
pub(crate) use event::SharedEvent;
pub(crate) use item::Item;

use crate::metrics::Metrics;
use item::continues;

/// Deltas are not merged while fewer items wait than this: the socket keeps up, and an unmerged event shares its JSON
/// with the other connections.
const MERGE_FROM: usize = 8;
/// How many items from the end are searched for the delta that a new delta continues.
const MERGE_REACH: usize = 16;
/// How many times `limit` all items together may hold. The excess is replies to requests read before the bound was
/// reached.
const REPLY_FACTOR: usize = 4;

/// What the connection's task must do before it sends the next item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Send the waiting items, then close.
    Close(CloseCode),
    /// The ready links have changed, and the link in use is not one of them: choose a link again.
    Relink,
}

/// The queue. The connection's task and the registry share it.
#[derive(Debug)]
pub(crate) struct SendQueue {
    limit: usize,
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    queue: VecDeque<Item>,
    event_bytes: usize,
    other_bytes: usize,
    /// The link whose frames are accepted; 0: none. Frames of an earlier link are dropped, so that nothing old is
    /// delivered after a move to another brain.
    link: u64,
    /// [`Signal::Relink`] is pending.
    relink: bool,
    /// [`Signal::Close`] is pending.
    close: Option<CloseCode>,
    /// A close was requested: no item is accepted any more.
    closed: bool,
    waker: Option<Waker>,
}

impl SendQueue {
    /// An empty queue for at most `limit` bytes of events and [`REPLY_FACTOR`] times as many bytes in total.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Adds an event of a link.
    pub(crate) fn push_event(&self, link: u64, event: &Arc<SharedEvent>, receipt: u64, metrics: &Metrics) {
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
        // A single event may be larger than the bound; otherwise it could never be sent.
        if (events_before > 0 && state.event_bytes > self.limit) || self.is_overfull(&state, before) {
            state.overflow(metrics);
        }
        state.wake();
    }

    /// Adds a reply of a link.
    pub(crate) fn push_reply(&self, link: u64, no: u32, message: Option<ServerMessage>, metrics: &Metrics) {
        let mut state = self.state.lock();
        if state.closed || state.link != link {
            return;
        }
        let before = state.bytes();
        state.push(Item::Reply { no, message: message.map(Box::new) });
        if self.is_overfull(&state, before) {
            state.overflow(metrics);
        }
        state.wake();
    }

    /// Whether the items exceed the total bound. A single item, with nothing queued `before`, may be that large.
    fn is_overfull(&self, state: &QueueState, before: usize) -> bool {
        before > 0 && state.bytes() > self.limit.saturating_mul(REPLY_FACTOR)
    }

    /// Adds an item of the gateway itself.
    pub(crate) fn push_own(&self, item: Item) {
        let mut state = self.state.lock();
        if !state.closed {
            state.push(item);
            state.wake();
        }
    }

    /// Closes the connection after the waiting items and `notice` were sent. The first close determines the code.
    pub(crate) fn close(&self, code: CloseCode, notice: Option<Utf8Bytes>) {
        let mut state = self.state.lock();
        if !state.closed {
            state.queue.extend(notice.map(Item::Text));
            state.close(code);
            state.wake();
        }
    }

    /// [`SendQueue::close`] on behalf of a brain. Ignored unless `link` is in use.
    pub(crate) fn close_from(&self, link: u64, code: CloseCode, notice: Option<Utf8Bytes>) {
        if self.state.lock().link == link {
            self.close(code, notice);
        }
    }

    /// Signals the task to choose a link again, unless `usable` accepts the link in use.
    pub(crate) fn relink_unless(&self, usable: impl Fn(u64) -> bool) {
        let mut state = self.state.lock();
        if !state.closed && !usable(state.link) {
            state.relink = true;
            state.wake();
        }
    }

    /// Accepts frames of `link` only from now on (0: of none). `visit` sees the waiting items: the client receives them
    /// before anything from the new link. Their receipts are dropped, because receipt numbers belong to the old link.
    pub(crate) fn rebind<T>(&self, link: u64, visit: impl FnOnce(&mut dyn Iterator<Item = &Item>) -> T) -> T {
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

    /// The next signal. Without one, the task is woken at the next signal or item.
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

    /// Takes the next item to send.
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

    /// Whether so much waits that no further requests of the client should be read.
    pub(crate) fn is_full(&self) -> bool {
        self.state.lock().bytes() >= self.limit
    }
}

impl QueueState {
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

    /// Closes a connection whose client does not read, and drops the waiting items.
    fn overflow(&mut self, metrics: &Metrics) {
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

    /// Merges a delta into the waiting delta that it continues. Only deltas of other answers may stand between the two.
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

#[cfg(test)]
mod tests;
