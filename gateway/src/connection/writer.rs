//! From the queue to the socket: everything that is ready leaves in one flush.

use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use chatbox_shared::proto::ServerMessage;
use futures_util::SinkExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tungstenite::{Message, Utf8Bytes};

use super::outbound::Item;
use super::sessions::Verdict;
use super::state::Connection;
use super::{Event, frame};
use crate::link::Upward;

/// What was written and is not yet known to have left.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Something was written since the last flush.
    unflushed: bool,
    /// Something waits that the socket did not take.
    blocked: bool,
    /// Our side of a broken connection was shut down.
    shut: bool,
    /// The receipts to give after the next flush.
    receipts: Vec<u64>,
    frames: u32,
}

impl Writer {
    /// Text frames sent at all.
    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    /// Does the socket take nothing, though something waits for it?
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The brain that asked for the receipts is no longer the one that is told.
    pub(super) fn forget_receipts(&mut self) {
        self.receipts = Vec::new();
    }
}

impl Connection {
    /// Everything the socket has to say: signals first, then its own progress.
    pub(super) fn poll<S>(&mut self, socket: &mut WebSocketStream<S>, task: &mut Task<'_>) -> Poll<Event>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(signal) = self.outbound.poll_signal(task) {
            return Poll::Ready(Event::Signal(signal));
        }
        if let Some(refresh) = &mut self.refresh
            && let Poll::Ready(refreshed) = refresh.as_mut().poll(task)
        {
            self.refresh = None;
            return Poll::Ready(Event::Refreshed(refreshed));
        }
        let written = self.poll_write(socket, task);
        if written.is_pending() && !self.writer.blocked && self.is_busy() {
            // It took everything until now; only what follows is its silence.
            self.heartbeat.heard(Instant::now());
        }
        self.writer.blocked = written.is_pending();
        match written {
            Poll::Ready(Err(error)) => return Poll::Ready(Event::Failed(error)),
            Poll::Ready(Ok(())) if !self.writer.receipts.is_empty() => {
                for receipt in std::mem::take(&mut self.writer.receipts) {
                    self.uplink.push(Upward::Receipt(receipt));
                }
                return Poll::Ready(Event::Uplink);
            }
            _ => {}
        }
        self.poll_read(socket, task)
    }

    /// Writes what waits, then flushes. Ready when nothing is left to do, pending while the socket takes nothing.
    fn poll_write<S>(&mut self, socket: &mut WebSocketStream<S>, task: &mut Task<'_>) -> Poll<tungstenite::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.closing.as_ref().is_none_or(|closing| !closing.answered) {
            loop {
                ready!(socket.poll_ready_unpin(task))?;
                let Some(item) = self.outbound.pop() else { break };
                if let Some(message) = self.outgoing(item) {
                    self.writer.unflushed = true;
                    socket.start_send_unpin(message)?;
                }
            }
        }
        if let Some(closing) = &mut self.closing
            && !closing.answered
        {
            closing.answered = true;
            self.writer.unflushed = true;
            socket.start_send_unpin(Message::Close(Some(closing.code.frame())))?;
        }
        if self.writer.unflushed {
            ready!(socket.poll_flush_unpin(task))?;
            self.writer.unflushed = false;
        }
        if self.closing.as_ref().is_some_and(|closing| closing.broken) && !self.writer.shut {
            // The client reads our close frame and then the end; it need not answer what it cannot.
            ready!(Pin::new(socket.get_mut()).poll_shutdown(task))?;
            self.writer.shut = true;
        }
        Poll::Ready(Ok(()))
    }

    /// An item as it goes out; `None` where there is nothing to send for it.
    fn outgoing(&mut self, item: Item) -> Option<Message> {
        let text = match item {
            Item::Event { event, receipt } => {
                if receipt != 0 {
                    self.writer.receipts.push(receipt);
                }
                match self.sessions.observe(event.message()) {
                    Verdict::Send => event.text(),
                    Verdict::Drop => None,
                }
            }
            Item::Merged(delta) => match self.sessions.observe_delta(&delta) {
                Verdict::Send => frame::encode_delta(&delta),
                Verdict::Drop => None,
            },
            Item::Reply { no, message } => self.reply(no, message.map(|message| *message)),
            Item::Text(text) => Some(text),
            Item::Ping => return Some(Message::Ping(Bytes::new())),
        }?;
        if !self.may_read() {
            // The client is not heard now, but it takes what waits for it: it is not gone.
            self.heartbeat.heard(Instant::now());
        }
        self.writer.frames = self.writer.frames.saturating_add(1);
        let metrics = &self.context.metrics;
        metrics.frames_out.inc();
        metrics.bytes_out.inc_by(u64::try_from(text.len()).unwrap_or_default());
        Some(Message::Text(text))
    }

    /// The reply to a request that still waits for one. An earlier brain's reply may have come before the move.
    fn reply(&mut self, no: u32, message: Option<ServerMessage>) -> Option<Utf8Bytes> {
        let pending = self.requests.finish(no)?;
        self.context.metrics.in_flight.dec();
        let message = message.and_then(|message| message.message);
        self.sessions.replied(&pending.message, message.as_ref());
        match message {
            Some(message) => frame::encode(&message, pending.id.as_deref()),
            None => pending.id.as_deref().and_then(frame::ack),
        }
    }
}
