//! The way of one connection to its brain: the link in use, the messages that wait for room on it, and the move to
//! another link, which the client does not notice.
//!
//! A move sends three things to the new brain, in this order: `Open` with the open sessions and how far the client has
//! received each of them, then every request without a reply, oldest first. What the old brain has sent and still waits
//! for the client's socket counts as received; later frames of the old brain are dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use chatbox_shared::ids::UserId;
use chatbox_shared::proto::{self, GatewayFrame, gateway_frame};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::link::{Link, LinkState, untraced};
use crate::links::Links;

/// A message to the brain. It becomes a frame only when there is room for it, so that the frame is up to date.
#[derive(Debug)]
pub enum UplinkMessage {
    /// The connection attaches to the brain.
    Open(Box<proto::Open>),
    /// The request with this number.
    Request(u32),
    /// The receipt with this number.
    Receipt(u64),
    /// The principal of the connection has changed.
    Refresh,
}

/// What an uplink asks its connection.
pub trait UplinkSource {
    /// The number of the connection in this process.
    fn conn(&self) -> u64;

    /// The user, who determines the brain.
    fn user(&self) -> &UserId;

    /// Who is connected, as the token said.
    fn principal(&self) -> proto::Principal;

    /// The `Open` of the connection with these sessions to resume.
    fn open(&self, resume: Vec<proto::Resume>) -> proto::Open;

    /// The request with this number. `None` if it was answered.
    fn request(&self, no: u32) -> Option<proto::ClientMessage>;

    /// Accepts frames of the link `link` only from now on, and says what the new brain must know.
    fn rebind(&self, link: u64) -> Rebound;

    /// Accepts frames of no link from now on.
    fn unbind(&self);
}

/// What a connection tells its new brain. Items that still wait for the client's socket count as received.
#[derive(Debug, Default)]
pub struct Rebound {
    /// The open sessions.
    pub resume: Vec<proto::Resume>,
    /// The numbers of the requests without a reply, oldest first.
    pub unanswered: Vec<u32>,
}

/// The link of one connection and the messages that wait for room on it.
#[derive(Debug, Default)]
pub struct Uplink {
    link: Option<Arc<Link>>,
    queue: VecDeque<UplinkMessage>,
    /// The connection had a link before, so the next attachment is a move.
    attached: bool,
}

impl Uplink {
    /// Whether the connection has no link.
    pub fn is_detached(&self) -> bool {
        self.link.is_none()
    }

    /// Whether no message waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues a message. Without a link the message is dropped: [`Uplink::attach`] sends everything that matters.
    pub fn push(&mut self, message: UplinkMessage) {
        if self.link.is_some() {
            self.queue.push_back(message);
        }
    }

    /// Sends as many messages as there is room for.
    pub fn send(&mut self, source: &impl UplinkSource) {
        while let (Some(link), false) = (&self.link, self.queue.is_empty()) {
            match link.sender.clone().try_reserve_owned() {
                Ok(permit) => self.send_one(permit, source),
                Err(TrySendError::Full(_)) => return,
                // The link is lost. `links_changed` follows, and then the connection moves.
                Err(TrySendError::Closed(_)) => self.queue.clear(),
            }
        }
        if self.queue.capacity() > 0 {
            self.queue = VecDeque::new();
        }
    }

    /// Sends the next message with a permit of the link.
    pub fn send_one(&mut self, permit: mpsc::OwnedPermit<GatewayFrame>, source: &impl UplinkSource) {
        while let Some(message) = self.queue.pop_front() {
            if let Some(frame) = message.into_frame(source) {
                permit.send(frame);
                return;
            }
        }
    }

    /// The channel to wait on for room, if a message waits.
    pub fn blocked(&self) -> Option<mpsc::Sender<GatewayFrame>> {
        match &self.link {
            Some(link) if !self.queue.is_empty() => Some(link.sender.clone()),
            _ => None,
        }
    }

    /// Moves to the link of the user's home, unless the link in use is ready. Returns whether the link has changed.
    pub fn attach(&mut self, links: &Links, source: &impl UplinkSource) -> bool {
        let mut moved = false;
        loop {
            match links.choose(source.user()) {
                Some(link) => {
                    if self.link.as_ref().is_some_and(|current| current.is(LinkState::Ready)) {
                        return moved;
                    }
                    self.move_to(link, links, source);
                    moved = true;
                }
                // A draining brain serves its connections until it ends the stream.
                None if self.link.as_ref().is_some_and(|current| !current.is(LinkState::Lost)) => return moved,
                None => {
                    self.leave(source.conn());
                    source.unbind();
                    moved = true;
                    // A link that became ready between `choose` and `unbind` did not signal this connection.
                    if !links.any_ready() {
                        return moved;
                    }
                }
            }
        }
    }

    fn move_to(&mut self, link: Arc<Link>, links: &Links, source: &impl UplinkSource) {
        self.leave(source.conn());
        link.enter();
        let Rebound { resume, unanswered } = source.rebind(link.id);
        if std::mem::replace(&mut self.attached, true) {
            links.metrics().reattached.inc();
        }
        self.queue.push_back(UplinkMessage::Open(Box::new(source.open(resume))));
        for no in unanswered {
            links.metrics().resent_requests.inc();
            self.queue.push_back(UplinkMessage::Request(no));
        }
        self.link = Some(link);
    }

    /// Tells the brain that the connection has ended. Waits for room, because the brain would keep the connection.
    pub async fn end(&mut self, conn: u64) {
        self.queue.clear();
        if let Some(link) = self.link.take() {
            drop(link.sender.send(close(conn)).await);
            link.leave();
        }
    }

    /// Leaves the link without waiting. The brain is told if there is room; otherwise the end of the stream tells it.
    pub fn leave(&mut self, conn: u64) {
        self.queue.clear();
        if let Some(link) = self.link.take() {
            drop(link.sender.try_send(close(conn)));
            link.leave();
        }
    }
}

fn close(conn: u64) -> GatewayFrame {
    untraced(gateway_frame::Frame::Close(proto::Close { conn }))
}

impl UplinkMessage {
    /// The frame. `None` if the message has become pointless.
    fn into_frame(self, source: &impl UplinkSource) -> Option<GatewayFrame> {
        let conn = source.conn();
        Some(untraced(match self {
            Self::Open(open) => gateway_frame::Frame::Open(*open),
            Self::Request(no) => gateway_frame::Frame::Request(proto::Request {
                conn,
                request_no: no,
                message: Some(source.request(no)?),
            }),
            Self::Receipt(receipt) => gateway_frame::Frame::Receipt(proto::Receipt { conn, receipt }),
            Self::Refresh => {
                gateway_frame::Frame::Refresh(proto::Refresh { conn, principal: Some(source.principal()) })
            }
        }))
    }
}
