//! From the socket inwards: what a client sends, and whether it may send more.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use chatbox_shared::failure::{ErrorCode, Failure};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;

use super::frame::{self, Frame, Refused, Request};
use super::state::{Closing, Connection};
use super::{CLOSE_PATIENCE, CloseCode, Event};
use crate::link::Upward;

/// What the invalid frames of a connection are counted over.
const WINDOW: Duration = Duration::from_secs(60);
/// Requests over the rate are told so, and cost the connection only when there are this many times as many within a
/// minute as there may be invalid ones.
const FLOOD_FACTOR: u32 = 10;

/// What a client has done wrong lately.
#[derive(Debug)]
pub(super) struct Offences {
    since: Instant,
    invalid: u32,
    limited: u32,
    frames: u32,
}

impl Offences {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, invalid: 0, limited: 0, frames: 0 }
    }

    /// Text frames received at all.
    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    /// Counts one; is it now one too many?
    fn count(&mut self, now: Instant, invalid: u32, limited: u32, allowed: u32) -> bool {
        if now.duration_since(self.since) >= WINDOW {
            (self.since, self.invalid, self.limited) = (now, 0, 0);
        }
        self.invalid += invalid;
        self.limited += limited;
        self.invalid > allowed || self.limited > allowed.saturating_mul(FLOOD_FACTOR)
    }
}

impl Connection {
    /// May the socket be read? Not while the client's requests are more than are kept, while the link has no room for
    /// them, while a token is being checked (what follows may need it), or while too much waits for the client.
    pub(super) fn may_read(&self) -> bool {
        !self.is_busy() && !self.outbound.is_full()
    }

    /// Is there enough to do without reading more?
    pub(super) fn is_busy(&self) -> bool {
        let settings = &self.context.settings;
        self.requests.len() >= settings.max_in_flight
            || self.requests.bytes() >= settings.outbound_queue_bytes
            || !self.uplink.is_idle()
            || self.refresh.is_some()
    }

    /// The next thing the client sends.
    pub(super) fn poll_read<S>(&mut self, socket: &mut WebSocketStream<S>, task: &mut Task<'_>) -> Poll<Event>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match &self.closing {
            Some(closing) if closing.broken => return discard(socket.get_mut(), task),
            None if !self.may_read() => return Poll::Pending,
            _ => {}
        }
        Poll::Ready(match ready!(socket.poll_next_unpin(task)) {
            Some(Ok(message)) => Event::Received(message),
            Some(Err(error)) => Event::Failed(error),
            None => Event::Gone,
        })
    }

    pub(super) fn received(&mut self, message: Message) {
        let now = Instant::now();
        self.heartbeat.heard(now);
        match message {
            Message::Close(frame) => {
                let code = CloseCode::received(frame.as_ref());
                let deadline = now + CLOSE_PATIENCE;
                let closing = Closing { code, deadline, answered: false, broken: false };
                // The WebSocket answers by itself.
                self.closing.get_or_insert(closing).answered = true;
            }
            _ if self.closing.is_some() => {}
            Message::Text(text) => self.text(&text, now),
            Message::Binary(_) => self.close(CloseCode::BINARY),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                if self.bucket.take(now).is_err() {
                    self.offend(now, 0, 1);
                }
            }
        }
    }

    fn text(&mut self, text: &str, now: Instant) {
        let metrics = &self.context.metrics;
        metrics.frames_in.inc();
        metrics.bytes_in.inc_by(u64::try_from(text.len()).unwrap_or_default());
        self.offences.frames = self.offences.frames.saturating_add(1);
        let parsed = frame::parse(text, self.context.links.info().max_content_chars);
        if let Err(wait) = self.bucket.take(now) {
            metrics.rate_limited.inc();
            let id = match &parsed {
                Ok(Frame { id, .. }) | Err(Refused { id, .. }) => id.as_deref(),
            };
            // Rounded up: a hint of 0 would be none.
            let wait = wait + Duration::from_millis(1);
            self.refuse(id, &Failure::new(ErrorCode::RateLimited).retry_after(wait));
            return self.offend(now, 0, 1);
        }
        match parsed {
            Ok(frame) => self.request(frame, now),
            Err(Refused { id, failure }) => {
                metrics.invalid_frames.inc();
                self.refuse(id.as_deref(), &failure);
                self.offend(now, 1, 0);
            }
        }
    }

    fn offend(&mut self, now: Instant, invalid: u32, limited: u32) {
        if self.offences.count(now, invalid, limited, self.context.settings.max_invalid_frames) {
            self.close(CloseCode::POLICY);
        }
    }

    fn request(&mut self, frame: Frame, now: Instant) {
        match frame.request {
            Request::Ping => self.say(frame::pong(frame.id.as_deref())),
            Request::TokenRefresh(token) => {
                let verifier = Arc::clone(&self.context.verifier);
                self.refresh = Some(Box::pin(async move { (frame.id, verifier.verify(&token).await) }));
            }
            Request::Brain(message) => {
                self.context.metrics.in_flight.inc();
                let no = self.requests.add(frame.id, message, now);
                self.uplink.push(Upward::Request(no));
            }
        }
    }
}

/// Takes and forgets what the client still sends.
fn discard<S: AsyncRead + Unpin>(socket: &mut S, task: &mut Task<'_>) -> Poll<Event> {
    let mut bytes = [0_u8; 512];
    loop {
        let mut buffer = ReadBuf::new(&mut bytes);
        match ready!(Pin::new(&mut *socket).poll_read(task, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => {}
            _ => return Poll::Ready(Event::Gone),
        }
    }
}
