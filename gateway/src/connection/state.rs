//! A connection without its socket: its state, and the reaction to everything that can happen to it. Plain functions:
//! nothing here waits. Reading, writing, token renewal and closing are `impl` blocks in files of their own.

use std::ops::ControlFlow;
use std::sync::Arc;

use chatbox_link::Uplink;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::{ErrorCode, Failure};
use tokio::time::Instant;
use tungstenite::Utf8Bytes;

use super::closing::Closing;
use super::heartbeat::{Due, Heartbeat};
use super::requests::Requests;
use super::sessions::Sessions;
use super::types::{Accepted, ConnectionContext, ConnectionEvent, Refresh};
use super::uplink::UplinkView;
use super::violations::Violations;
use super::welcome::welcome;
use super::write_state::WriteState;
use crate::frame;
use crate::limits::TokenBucket;
use crate::send_queue::{CloseCode, Item, SendQueue, Signal};

/// A connection without its socket.
pub(super) struct Connection {
    pub(super) context: Arc<ConnectionContext>,
    pub(super) accepted: Accepted,
    /// When the connection was opened.
    pub(super) since: Timestamp,
    /// The number of the connection in this process.
    pub(super) conn: u64,
    pub(super) queue: Arc<SendQueue>,
    pub(super) uplink: Uplink,
    pub(super) requests: Requests,
    pub(super) sessions: Sessions,
    pub(super) bucket: TokenBucket,
    pub(super) violations: Violations,
    pub(super) heartbeat: Heartbeat,
    /// The verification of a renewed token.
    pub(super) refresh: Option<Refresh>,
    pub(super) write_state: WriteState,
    pub(super) closing: Option<Closing>,
}

impl Connection {
    /// Adds a connection to the registry, with its `welcome` in the queue, and attaches it to a brain.
    pub(super) fn new(context: Arc<ConnectionContext>, accepted: Accepted) -> Self {
        let (now, wall) = (Instant::now(), context.clock.now());
        let settings = &context.settings;
        let queue = Arc::new(SendQueue::new(settings.outbound_queue_bytes));
        if let Some(welcome) = welcome(&context, &accepted, wall) {
            queue.push_own(Item::Text(welcome));
        }
        let mut connection = Self {
            conn: context.registry.add(Arc::clone(&queue)),
            bucket: TokenBucket::new(settings.requests_per_second.into(), settings.request_burst),
            heartbeat: Heartbeat::new(settings.heartbeat_interval, accepted.verified.expires_at, now, wall),
            violations: Violations::new(now),
            context,
            accepted,
            since: wall,
            queue,
            uplink: Uplink::default(),
            requests: Requests::default(),
            sessions: Sessions::default(),
            refresh: None,
            write_state: WriteState::default(),
            closing: None,
        };
        tracing::debug!(
            connection = %connection.accepted.id,
            client = %connection.accepted.remote_ip,
            user = %connection.accepted.verified.principal.user,
            "connection opened"
        );
        connection.attach();
        connection
    }

    /// Reacts to an event. `Break`: the connection has ended.
    pub(super) fn handle(&mut self, event: ConnectionEvent) -> ControlFlow<()> {
        match event {
            ConnectionEvent::Timer => return self.tick(),
            ConnectionEvent::Room(Some(permit)) => {
                let (uplink, view) = self.uplink_and_view();
                uplink.send_one(permit, &view);
            }
            // A lost link is followed by `Signal::Relink`; queued messages are sent at the start of the loop.
            ConnectionEvent::Room(None) | ConnectionEvent::Uplink => {}
            ConnectionEvent::Signal(Signal::Relink) if self.closing.is_some() => {}
            ConnectionEvent::Signal(Signal::Relink) => self.attach(),
            ConnectionEvent::Signal(Signal::Close(code)) => self.close(code),
            ConnectionEvent::Refreshed((id, outcome)) => self.refreshed(id, outcome),
            ConnectionEvent::Received(message) => self.received(message),
            ConnectionEvent::Failed(error) => return self.failed(&error),
            ConnectionEvent::Gone => return self.gone(),
        }
        ControlFlow::Continue(())
    }

    /// When [`ConnectionEvent::Timer`] is due.
    pub(super) fn next_deadline(&self) -> Instant {
        if let Some(closing) = &self.closing {
            return closing.deadline();
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
            return closing.check(now);
        }
        while self.closing.is_none()
            && let Some(due) = self.heartbeat.due(now, wall)
        {
            self.heartbeat_due(due, now);
        }
        while self.uplink.is_detached()
            && let Some(request) = self.requests.expired(now)
        {
            self.context.metrics.in_flight.dec();
            self.refuse(request.id.as_deref(), &Failure::new(ErrorCode::Unavailable));
        }
        ControlFlow::Continue(())
    }

    fn heartbeat_due(&mut self, due: Due, now: Instant) {
        match due {
            Due::Ping => self.queue.push_own(Item::Ping),
            // The socket was not read because the brain is slow. That is not the client's silence, unless the socket is
            // blocked, too: a dead client would keep its requests and their replies until TCP gives up.
            Due::IdleTimeout if self.is_busy() && !self.write_state.is_blocked() => self.heartbeat.heard(now),
            Due::IdleTimeout => self.close(CloseCode::HEARTBEAT),
            Due::TokenWarning => {
                self.push_text(frame::notice("token_expiring", "The token expires soon. Please send a new one.", None));
            }
            Due::TokenExpired => self.close(CloseCode::TOKEN),
        }
    }

    /// Queues a frame of the gateway itself.
    pub(super) fn push_text(&self, text: Option<Utf8Bytes>) {
        if let Some(text) = text {
            self.queue.push_own(Item::Text(text));
        }
    }

    /// Queues an `error`.
    pub(super) fn refuse(&self, reply_to: Option<&str>, failure: &Failure) {
        tracing::debug!(
            connection = %self.accepted.id,
            code = %failure.code,
            field = ?failure.field,
            error_id = %failure.error_id,
            "request rejected"
        );
        self.push_text(frame::error(reply_to, failure));
    }

    /// Attaches the connection to the brain of its user. Receipts belong to the earlier link, so a move drops them.
    fn attach(&mut self) {
        let context = Arc::clone(&self.context);
        let (uplink, view) = self.uplink_and_view();
        if uplink.attach(&context.links, &view) {
            drop(self.write_state.take_receipts());
        }
    }

    /// Sends the queued messages to the brain, as far as there is room.
    pub(super) fn send_up(&mut self) {
        if !self.uplink.is_idle() {
            let (uplink, view) = self.uplink_and_view();
            uplink.send(&view);
        }
    }

    /// The uplink, and the parts of the connection that it reads.
    fn uplink_and_view(&mut self) -> (&mut Uplink, UplinkView<'_>) {
        let view = UplinkView {
            conn: self.conn,
            since: self.since,
            accepted: &self.accepted,
            queue: &self.queue,
            sessions: &self.sessions,
            requests: &self.requests,
        };
        (&mut self.uplink, view)
    }
}
