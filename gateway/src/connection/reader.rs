//! From the socket inwards: what a client sends, and whether its socket may be read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use chatbox_link::UplinkMessage;
use chatbox_shared::failure::{ErrorCode, Failure};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;

use super::state::Connection;
use super::types::ConnectionEvent;
use super::violations::Violation;
use crate::frame::{self, ClientFrame, ClientRequest, InvalidFrame};
use crate::send_queue::CloseCode;

impl Connection {
    /// Whether the socket may be read. It is not read while the connection is busy or while too much waits for the
    /// client.
    pub(super) fn may_read(&self) -> bool {
        !self.is_busy() && !self.queue.is_full()
    }

    /// Whether no further request is accepted: too many requests have no reply, the link has no room for a message, or
    /// a token is verified that the next request may need.
    pub(super) fn is_busy(&self) -> bool {
        let settings = &self.context.settings;
        self.requests.len() >= settings.max_in_flight
            || self.requests.bytes() >= settings.outbound_queue_bytes
            || !self.uplink.is_idle()
            || self.refresh.is_some()
    }

    /// The next message of the client.
    pub(super) fn poll_read<S>(
        &mut self,
        socket: &mut WebSocketStream<S>,
        task: &mut Context<'_>,
    ) -> Poll<ConnectionEvent>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match &self.closing {
            Some(closing) if closing.broken => return discard(socket.get_mut(), task),
            None if !self.may_read() => return Poll::Pending,
            _ => {}
        }
        Poll::Ready(match ready!(socket.poll_next_unpin(task)) {
            Some(Ok(message)) => ConnectionEvent::Received(message),
            Some(Err(error)) => ConnectionEvent::Failed(error),
            None => ConnectionEvent::Gone,
        })
    }

    /// Handles a message of the client.
    pub(super) fn received(&mut self, message: Message) {
        let now = Instant::now();
        self.heartbeat.heard(now);
        match message {
            Message::Close(frame) => self.client_closed(CloseCode::received(frame.as_ref())),
            _ if self.closing.is_some() => {}
            Message::Text(text) => self.text(&text, now),
            Message::Binary(_) => self.close(CloseCode::BINARY),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                if self.bucket.take(now).is_err() {
                    self.violation(Violation::RateLimited, now);
                }
            }
        }
    }

    fn text(&mut self, text: &str, now: Instant) {
        let metrics = &self.context.metrics;
        metrics.frames_in.inc();
        metrics.bytes_in.inc_by(u64::try_from(text.len()).unwrap_or_default());
        self.violations.count_frame();
        if let Err(wait) = self.bucket.take(now) {
            metrics.rate_limited.inc();
            let id = frame::request_id(text);
            // Rounded up to a millisecond: a hint of 0 means that there is no hint.
            let wait = wait + Duration::from_millis(1);
            self.refuse(id.as_deref(), &Failure::new(ErrorCode::RateLimited).retry_after(wait));
            return self.violation(Violation::RateLimited, now);
        }
        match frame::parse(text, self.context.links.info().max_content_chars) {
            Ok(frame) => self.request(frame, now),
            Err(InvalidFrame { id, failure }) => {
                metrics.invalid_frames.inc();
                self.refuse(id.as_deref(), &failure);
                self.violation(Violation::Invalid, now);
            }
        }
    }

    fn violation(&mut self, violation: Violation, now: Instant) {
        if self.violations.count(violation, now, self.context.settings.max_invalid_frames) {
            self.close(CloseCode::POLICY);
        }
    }

    fn request(&mut self, frame: ClientFrame, now: Instant) {
        match frame.request {
            ClientRequest::Ping => self.push_text(frame::pong(frame.id.as_deref())),
            ClientRequest::TokenRefresh(token) => self.start_refresh(frame.id, token),
            ClientRequest::Brain(message) => {
                self.context.metrics.in_flight.inc();
                let no = self.requests.add(frame.id, message, now);
                self.uplink.push(UplinkMessage::Request(no));
            }
        }
    }
}

/// Reads and discards the bytes that the client still sends.
fn discard<S: AsyncRead + Unpin>(socket: &mut S, task: &mut Context<'_>) -> Poll<ConnectionEvent> {
    let mut bytes = [0_u8; 512];
    loop {
        let mut buffer = ReadBuf::new(&mut bytes);
        match ready!(Pin::new(&mut *socket).poll_read(task, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => {}
            _ => return Poll::Ready(ConnectionEvent::Gone),
        }
    }
}
