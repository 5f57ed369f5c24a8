//! A connection without its socket: what it knows, and what it does about everything that can happen to it. Plain
//! functions; the loop that calls them is the module's own, reading and writing have files of their own.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use chatbox_shared::auth::{TokenError, Verified};
use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::{ErrorCode, Failure};
use tokio::time::Instant;
use tungstenite::Utf8Bytes;

use super::heartbeat::{Due, Heartbeat};
use super::outbound::{Item, Outbound, Signal};
use super::reader::Offences;
use super::requests::Requests;
use super::sessions::Sessions;
use super::writer::Writer;
use super::{Accepted, CLOSE_PATIENCE, CloseCode, Context, Event, Refreshed, frame};
use crate::limits::TokenBucket;
use crate::link::{Speaker, Uplink, Upward};
use crate::metrics::Close;

/// A connection without its socket.
pub(super) struct Connection {
    pub(super) context: Arc<Context>,
    pub(super) accepted: Accepted,
    pub(super) since: Timestamp,
    pub(super) conn: u64,
    pub(super) outbound: Arc<Outbound>,
    pub(super) uplink: Uplink,
    pub(super) requests: Requests,
    pub(super) sessions: Sessions,
    pub(super) bucket: TokenBucket,
    pub(super) offences: Offences,
    pub(super) heartbeat: Heartbeat,
    /// A renewed token that is being checked.
    pub(super) refresh: Option<Pin<Box<dyn Future<Output = Refreshed> + Send>>>,
    pub(super) writer: Writer,
    pub(super) closing: Option<Closing>,
}

/// A connection on its way out.
pub(super) struct Closing {
    pub(super) code: CloseCode,
    pub(super) deadline: Instant,
    /// Our close frame was written, or the client's came first.
    pub(super) answered: bool,
    /// The client broke the framing: its bytes are thrown away unread, but they are taken, for a socket closed with
    /// unread bytes is reset, and the client might never see why.
    pub(super) broken: bool,
}

impl Connection {
    /// Enters a connection into the roster, its welcome waiting in the queue, and brings it to a brain.
    pub(super) fn new(context: Arc<Context>, accepted: Accepted) -> Self {
        let (now, wall) = (Instant::now(), context.clock.now());
        let settings = &context.settings;
        let outbound = Arc::new(Outbound::new(settings.outbound_queue_bytes));
        if let Some(welcome) = welcome(&context, &accepted, wall) {
            outbound.push_own(Item::Text(welcome));
        }
        let mut connection = Self {
            conn: context.roster.add(Arc::clone(&outbound)),
            bucket: TokenBucket::new(settings.requests_per_second.into(), settings.request_burst),
            heartbeat: Heartbeat::new(settings.heartbeat_interval, accepted.verified.expires_at, now, wall),
            offences: Offences::new(now),
            context,
            accepted,
            since: wall,
            outbound,
            uplink: Uplink::default(),
            requests: Requests::default(),
            sessions: Sessions::default(),
            refresh: None,
            writer: Writer::default(),
            closing: None,
        };
        connection.attach();
        connection
    }

    pub(super) fn handle(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Timer => return self.tick(),
            Event::Room(Some(permit)) => {
                let (uplink, speaker) = self.speak();
                uplink.send_one(permit, &speaker);
            }
            // The pool will say that the link is lost.
            Event::Room(None) | Event::Uplink => {}
            Event::Signal(Signal::Relink) if self.closing.is_some() => {}
            Event::Signal(Signal::Relink) => self.attach(),
            Event::Signal(Signal::Close(code)) => self.close(code),
            Event::Refreshed((id, outcome)) => self.refreshed(id, outcome),
            Event::Received(message) => self.received(message),
            Event::Failed(error) => return self.failed(&error),
            Event::Gone => {
                self.ended(CloseCode::ABNORMAL);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// When [`Event::Timer`] must come.
    pub(super) fn next_deadline(&self) -> Instant {
        if let Some(closing) = &self.closing {
            return closing.deadline;
        }
        let next = self.heartbeat.next();
        match self.requests.next_expiry() {
            Some(expiry) if self.uplink.is_detached() => next.min(expiry),
            _ => next,
        }
    }

    fn tick(&mut self) -> ControlFlow<()> {
        let (now, wall) = (Instant::now(), self.context.clock.now());
        if let Some(closing) = &self.closing {
            return if now >= closing.deadline { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        while self.closing.is_none()
            && let Some(due) = self.heartbeat.due(now, wall)
        {
            match due {
                Due::Ping => self.outbound.push_own(Item::Ping),
                // Nobody listened to it, and that is the brain's doing. Where the socket takes nothing it is the client's:
                // a dead one would keep its requests and their replies for as long as TCP hopes.
                Due::Silent if self.is_busy() && !self.writer.is_blocked() => self.heartbeat.heard(now),
                Due::Silent => self.close(CloseCode::HEARTBEAT),
                Due::Warn => {
                    self.say(frame::notice("token_expiring", "The token expires soon. Please send a new one.", None))
                }
                Due::Expired => self.close(CloseCode::TOKEN),
            }
        }
        while self.uplink.is_detached()
            && let Some(pending) = self.requests.expired(now)
        {
            self.context.metrics.in_flight.dec();
            self.refuse(pending.id.as_deref(), &Failure::new(ErrorCode::Unavailable));
        }
        ControlFlow::Continue(())
    }

    /// Begins to close: what waits is sent first, then the close frame. The first reason counts.
    pub(super) fn close(&mut self, code: CloseCode) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        self.closing.get_or_insert(Closing { code, deadline, answered: false, broken: false });
        self.refresh = None;
    }

    fn failed(&mut self, error: &tungstenite::Error) -> ControlFlow<()> {
        match CloseCode::answering(error) {
            Some(code) if self.closing.is_none() => {
                self.close(code);
                if let Some(closing) = &mut self.closing {
                    closing.broken = true;
                }
                ControlFlow::Continue(())
            }
            _ => {
                self.ended(CloseCode::ABNORMAL);
                ControlFlow::Break(())
            }
        }
    }

    /// A fault of this program: the connection ends here, and counts as closed with 1011.
    pub(super) fn panicked(&mut self) {
        tracing::error!(connection = %self.accepted.id, "the task of a connection panicked");
        self.closing = None;
        self.ended(CloseCode::INTERNAL);
    }

    /// It has ended, with this code if none was agreed on.
    fn ended(&mut self, code: CloseCode) {
        self.closing.get_or_insert(Closing { code, deadline: Instant::now(), answered: true, broken: true });
    }

    /// Queues a frame of the gateway's own.
    pub(super) fn say(&self, text: Option<Utf8Bytes>) {
        if let Some(text) = text {
            self.outbound.push_own(Item::Text(text));
        }
    }

    /// Queues an `error`.
    pub(super) fn refuse(&self, reply_to: Option<&str>, failure: &Failure) {
        tracing::debug!(connection = %self.accepted.id, code = %failure.code, field = ?failure.field, error_id = %failure.error_id, "a request is refused");
        self.say(frame::error(reply_to, failure));
    }

    fn attach(&mut self) {
        let links = self.context.links.clone();
        let (uplink, speaker) = self.speak();
        if uplink.attach(&links, &speaker) {
            self.writer.forget_receipts();
        }
    }

    pub(super) fn send_up(&mut self) {
        if !self.uplink.is_idle() {
            let (uplink, speaker) = self.speak();
            uplink.send(&speaker);
        }
    }

    /// The uplink, and what it may say.
    fn speak(&mut self) -> (&mut Uplink, Speaker<'_>) {
        let speaker = Speaker {
            conn: self.conn,
            since: self.since,
            accepted: &self.accepted,
            outbound: &self.outbound,
            sessions: &self.sessions,
            requests: &self.requests,
            metrics: &self.context.metrics,
        };
        (&mut self.uplink, speaker)
    }

    fn refreshed(&mut self, id: Option<Box<str>>, outcome: Result<Verified, TokenError>) {
        match outcome {
            Ok(verified) if verified.principal.user == self.accepted.verified.principal.user => {
                self.heartbeat.renew(verified.expires_at, Instant::now(), self.context.clock.now());
                self.accepted.verified = verified;
                self.uplink.push(Upward::Refresh);
                self.say(id.as_deref().and_then(frame::ack));
            }
            outcome => {
                let reason = outcome.err().map_or("another_user", TokenError::reason);
                tracing::info!(connection = %self.accepted.id, reason, "a renewed token is refused");
                self.refuse(id.as_deref(), &Failure::new(ErrorCode::Unauthorized));
                self.close(CloseCode::TOKEN);
            }
        }
    }
}

/// Leaves the roster whatever ended the task.
impl Drop for Connection {
    fn drop(&mut self) {
        let code = self.closing.as_ref().map_or(CloseCode::INTERNAL, |closing| closing.code);
        self.context.roster.remove(self.conn);
        self.uplink.abandon(self.conn);
        self.context.metrics.in_flight.dec_by(i64::try_from(self.requests.len()).unwrap_or_default());
        self.context.metrics.closed(Close::of(code.0));
        tracing::info!(
            connection = %self.accepted.id,
            user = %self.accepted.verified.principal.user,
            code = code.0,
            duration_ms = u64::try_from(self.context.clock.now().since(self.since).as_millis()).unwrap_or(u64::MAX),
            frames_in = self.offences.frames(),
            frames_out = self.writer.frames(),
            "connection closed"
        );
    }
}

/// The first frame.
fn welcome(context: &Context, accepted: &Accepted, time: Timestamp) -> Option<Utf8Bytes> {
    let (info, settings) = (context.links.info(), &context.settings);
    frame::Welcome {
        connection: accepted.id,
        principal: &accepted.verified.principal,
        time,
        heartbeat: settings.heartbeat_interval,
        models: &info.models,
        default_model: &info.default_model,
        limits: frame::Limits {
            max_frame_bytes: settings.max_frame_bytes,
            max_content_chars: info.max_content_chars,
            replay_entries: info.replay_entries,
            requests_per_second: settings.requests_per_second,
            request_burst: settings.request_burst,
            max_page: frame::MAX_PAGE,
        },
    }
    .encode()
}
