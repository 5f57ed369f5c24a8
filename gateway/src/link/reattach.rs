//! A connection's way to its brain: which link it uses, what it still has to say there, and the move to another link
//! that its client never notices.
//!
//! A move says three things to the new brain, in this order: `Open` with what the connection has open and how far its
//! client has received it, then every request without a reply, in the order of their making. What the old brain said
//! and is still queued counts as received; what it says from now on is refused by the queue.

use std::collections::VecDeque;
use std::sync::Arc;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::proto::{self, GatewayFrame, gateway_frame};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::client::frame;
use super::{Link, LinkState, Links, convert};
use crate::connection::Accepted;
use crate::connection::outbound::{Item, Outbound};
use crate::connection::requests::Requests;
use crate::connection::sessions::Sessions;
use crate::metrics::Metrics;

/// Something to tell the brain. Made into a frame only when there is room for it.
#[derive(Debug)]
pub(crate) enum Upward {
    /// Here is a connection.
    Open(Box<proto::Open>),
    /// It asks this.
    Request(u32),
    /// It was sent that.
    Receipt(u64),
    /// Its token was renewed.
    Refresh,
}

/// What a connection knows of itself when it speaks to its brain.
pub(crate) struct Speaker<'a> {
    pub(crate) conn: u64,
    pub(crate) since: Timestamp,
    pub(crate) accepted: &'a Accepted,
    pub(crate) outbound: &'a Outbound,
    pub(crate) sessions: &'a Sessions,
    pub(crate) requests: &'a Requests,
    pub(crate) metrics: &'a Metrics,
}

/// A connection's link and what waits for room on it.
#[derive(Debug, Default)]
pub(crate) struct Uplink {
    link: Option<Arc<Link>>,
    queue: VecDeque<Upward>,
    /// Was there ever a link? Then the next one is a move.
    attached: bool,
}

impl Uplink {
    /// Is there no brain for this connection?
    pub(crate) fn is_detached(&self) -> bool {
        self.link.is_none()
    }

    /// Has everything been said?
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Says something as soon as there is room. Without a link it is forgotten: [`Uplink::attach`] says all that
    /// matters.
    pub(crate) fn push(&mut self, upward: Upward) {
        if self.link.is_some() {
            self.queue.push_back(upward);
        }
    }

    /// Sends what there is room for.
    pub(crate) fn send(&mut self, speaker: &Speaker<'_>) {
        while let (Some(link), false) = (&self.link, self.queue.is_empty()) {
            match link.sender.clone().try_reserve_owned() {
                Ok(permit) => self.send_one(permit, speaker),
                Err(TrySendError::Full(_)) => return,
                // The pool will say so, too, and then the connection moves.
                Err(TrySendError::Closed(_)) => self.queue.clear(),
            }
        }
        if self.queue.capacity() > 0 {
            self.queue = VecDeque::new();
        }
    }

    /// Uses a place on the link.
    pub(crate) fn send_one(&mut self, permit: mpsc::OwnedPermit<GatewayFrame>, speaker: &Speaker<'_>) {
        while let Some(upward) = self.queue.pop_front() {
            if let Some(frame) = upward.frame(speaker) {
                permit.send(frame);
                return;
            }
        }
    }

    /// Where to wait for room, if something waits for it.
    pub(crate) fn blocked(&self) -> Option<mpsc::Sender<GatewayFrame>> {
        match &self.link {
            Some(link) if !self.queue.is_empty() => Some(link.sender.clone()),
            _ => None,
        }
    }

    /// Moves to the best link there is, if that is another one. Returns whether the link in use was left or changed.
    pub(crate) fn attach(&mut self, links: &Links, speaker: &Speaker<'_>) -> bool {
        let mut moved = false;
        loop {
            match links.choose(&speaker.accepted.verified.principal.user) {
                Some(link) => {
                    if self.link.as_ref().is_some_and(|current| current.is(LinkState::Ready)) {
                        return moved;
                    }
                    self.move_to(link, speaker);
                    moved = true;
                }
                // A draining brain serves until it ends the stream.
                None if self.link.as_ref().is_some_and(|current| !current.is(LinkState::Lost)) => return moved,
                None => {
                    self.leave(speaker.conn);
                    speaker.outbound.switch(0, |_| ());
                    moved = true;
                    // A link that came up after the choice has told everybody before this connection let go.
                    if !links.any_ready() {
                        return moved;
                    }
                }
            }
        }
    }

    fn move_to(&mut self, link: Arc<Link>, speaker: &Speaker<'_>) {
        self.leave(speaker.conn);
        link.enter();
        let (resume, answered) = speaker.outbound.switch(link.id, |waiting| received(waiting, speaker));
        if std::mem::replace(&mut self.attached, true) {
            speaker.metrics.reattached.inc();
        }
        let open = convert::open(speaker.conn, speaker.accepted, speaker.since, resume);
        self.queue.push_back(Upward::Open(Box::new(open)));
        for no in speaker.requests.numbers().filter(|no| !answered.contains(no)) {
            speaker.metrics.resent_requests.inc();
            self.queue.push_back(Upward::Request(no));
        }
        self.link = Some(link);
    }

    /// Lets go of the link. A brain that still listens is told, if there is room; else the end of the stream will.
    fn leave(&mut self, conn: u64) {
        self.queue.clear();
        if let Some(link) = self.link.take() {
            drop(link.sender.try_send(close(conn)));
            link.leave();
        }
    }

    /// Tells the brain that the connection is gone; waits for room, for the brain would keep it for ever.
    pub(crate) async fn end(&mut self, conn: u64) {
        self.queue.clear();
        if let Some(link) = self.link.take() {
            drop(link.sender.send(close(conn)).await);
            link.leave();
        }
    }

    /// The same where nothing can be waited for.
    pub(crate) fn abandon(&mut self, conn: u64) {
        self.leave(conn);
    }
}

/// What the client will have received once everything that waits was sent: what it has open, and which requests were
/// answered.
fn received(waiting: &mut dyn Iterator<Item = &Item>, speaker: &Speaker<'_>) -> (Vec<proto::Resume>, Vec<u32>) {
    let mut sessions = speaker.sessions.clone();
    let mut answered = Vec::new();
    for item in waiting {
        match item {
            Item::Event { event, .. } => {
                sessions.observe(event.message());
            }
            Item::Merged(delta) => {
                sessions.observe_delta(delta);
            }
            Item::Reply { no, message } => {
                if let Some(pending) = speaker.requests.get(*no) {
                    sessions.replied(&pending.message, message.as_ref().and_then(|message| message.message.as_ref()));
                    answered.push(*no);
                }
            }
            Item::Text(_) | Item::Ping => {}
        }
    }
    (sessions.resume(), answered)
}

fn close(conn: u64) -> GatewayFrame {
    frame(gateway_frame::Frame::Close(proto::Close { conn }))
}

impl Upward {
    /// The frame. `None` where it has become pointless.
    fn frame(self, speaker: &Speaker<'_>) -> Option<GatewayFrame> {
        let conn = speaker.conn;
        Some(frame(match self {
            Self::Open(open) => gateway_frame::Frame::Open(*open),
            Self::Request(no) => gateway_frame::Frame::Request(proto::Request {
                conn,
                request_no: no,
                message: Some(speaker.requests.for_brain(no)?),
            }),
            Self::Receipt(receipt) => gateway_frame::Frame::Receipt(proto::Receipt { conn, receipt }),
            Self::Refresh => gateway_frame::Frame::Refresh(proto::Refresh {
                conn,
                principal: Some(convert::principal(&speaker.accepted.verified.principal)),
            }),
        }))
    }
}
