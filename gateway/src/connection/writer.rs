//! From the send queue to the socket: everything that is ready leaves in one flush.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use chatbox_link::UplinkMessage;
use chatbox_shared::proto::ServerMessage;
use futures_util::SinkExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tungstenite::{Message, Utf8Bytes};

use super::sessions::Verdict;
use super::state::Connection;
use crate::frame;
use crate::send_queue::Item;

impl Connection {
    /// Writes the waiting items, then flushes. Ready when nothing is left to do; pending while the socket is blocked.
    pub(super) fn poll_write<S>(
        &mut self,
        socket: &mut WebSocketStream<S>,
        task: &mut Context<'_>,
    ) -> Poll<tungstenite::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        ready!(self.poll_items(socket, task))?;
        if let Some(closing) = &mut self.closing
            && !closing.answered
        {
            closing.answered = true;
            self.write_state.unflushed = true;
            socket.start_send_unpin(Message::Close(Some(closing.code.frame())))?;
        }
        if self.write_state.unflushed {
            ready!(socket.poll_flush_unpin(task))?;
            self.write_state.unflushed = false;
        }
        if self.closing.as_ref().is_some_and(|closing| closing.broken) && !self.write_state.shut {
            // The client reads the close frame and then the end of the stream. It need not answer the close frame.
            ready!(Pin::new(socket.get_mut()).poll_shutdown(task))?;
            self.write_state.shut = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the waiting items, unless the close frame was already written.
    fn poll_items<S>(
        &mut self,
        socket: &mut WebSocketStream<S>,
        task: &mut Context<'_>,
    ) -> Poll<tungstenite::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.closing.as_ref().is_some_and(|closing| closing.answered) {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(socket.poll_ready_unpin(task))?;
            let Some(item) = self.queue.pop() else { return Poll::Ready(Ok(())) };
            if let Some(message) = self.outgoing(item) {
                self.write_state.unflushed = true;
                socket.start_send_unpin(message)?;
            }
        }
    }

    /// Queues the receipts that are due after a flush. Returns whether there were any.
    pub(super) fn queue_receipts(&mut self) -> bool {
        let receipts = self.write_state.take_receipts();
        let any = !receipts.is_empty();
        for receipt in receipts {
            self.uplink.push(UplinkMessage::Receipt(receipt));
        }
        any
    }

    /// The WebSocket message of an item. `None` if nothing is sent for the item.
    fn outgoing(&mut self, item: Item) -> Option<Message> {
        let text = match item {
            Item::Event { event, receipt } => {
                if receipt != 0 {
                    self.write_state.add_receipt(receipt);
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
            // The socket is not read now, so the client cannot be heard. That it accepts frames shows that it is alive.
            self.heartbeat.heard(Instant::now());
        }
        self.write_state.count_frame();
        let metrics = &self.context.metrics;
        metrics.frames_out.inc();
        metrics.bytes_out.inc_by(u64::try_from(text.len()).unwrap_or_default());
        Some(Message::Text(text))
    }

    /// The reply to a request. `None` if the request was already answered, which an earlier brain may have done before
    /// the move.
    fn reply(&mut self, no: u32, message: Option<ServerMessage>) -> Option<Utf8Bytes> {
        let request = self.requests.finish(no)?;
        self.context.metrics.in_flight.dec();
        let message = message.and_then(|message| message.message);
        self.sessions.replied(&request.message, message.as_ref());
        match message {
            Some(message) => frame::encode(&message, request.id.as_deref()),
            None => request.id.as_deref().and_then(frame::ack),
        }
    }
}
