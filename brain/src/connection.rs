//! One client connection as the brain knows it: who it is, which link leads to it, what it has open. The socket itself
//! is the gateway's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chatbox_shared::auth::Principal;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::{ConnectionId, SessionId};
use chatbox_shared::proto::{ClientMessage, Kick, Notice, ServerMessage, server_message::Message};
use parking_lot::Mutex;
use prost::Message as _;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::grpc::outbox::Outbox;
use crate::session::Session;

/// A typing notice is passed on this often at most.
const TYPING_INTERVAL: Duration = Duration::from_secs(1);

/// One client connection. Kept small: there are tens of thousands.
#[derive(Debug)]
pub struct Connection {
    /// Its number on its link.
    pub conn: u64,
    /// Its id in the cluster.
    pub id: ConnectionId,
    /// The device the client named.
    pub device: Option<Box<str>>,
    /// When its gateway accepted it; a move to another brain changes nothing about it.
    pub connected_at: Timestamp,
    outbox: Outbox,
    state: Mutex<State>,
    closed: AtomicBool,
    receipts: AtomicU64,
}

#[derive(Debug)]
struct State {
    principal: Arc<Principal>,
    opened: SmallVec<[Opened; 1]>,
    queue: VecDeque<QueuedRequest>,
    busy: bool,
    receipt: Option<(u64, oneshot::Sender<()>)>,
}

/// What a gateway says of a connection.
#[derive(Debug, Clone)]
pub struct Announced {
    /// Its number on its link.
    pub conn: u64,
    /// Its id in the cluster.
    pub id: ConnectionId,
    /// The device the client named.
    pub device: Option<Box<str>>,
    /// When it was accepted.
    pub connected_at: Timestamp,
}

/// What became of an event whose delivery was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paced {
    /// It has left the gateway's queue.
    Taken,
    /// The connection is gone.
    Gone,
    /// The socket took nothing for too long.
    TooSlow,
}

/// A session this connection has open.
#[derive(Debug)]
pub struct Opened {
    /// The session; held so that it stays in memory.
    pub session: Arc<Session>,
    /// When a typing notice was last passed on.
    last_typing: Option<Instant>,
}

/// A request that waits for those before it.
#[derive(Debug)]
pub struct QueuedRequest {
    /// The gateway's number for it.
    pub request_no: u32,
    /// What is asked.
    pub message: ClientMessage,
}

impl Connection {
    /// A connection that was just announced by its gateway.
    pub fn new(announced: Announced, principal: Principal, outbox: Outbox) -> Self {
        Self {
            conn: announced.conn,
            id: announced.id,
            device: announced.device,
            connected_at: announced.connected_at,
            outbox,
            state: Mutex::new(State {
                principal: Arc::new(principal),
                opened: SmallVec::new(),
                queue: VecDeque::new(),
                busy: false,
                receipt: None,
            }),
            closed: AtomicBool::new(false),
            receipts: AtomicU64::new(0),
        }
    }

    /// Who is on the other side.
    pub fn principal(&self) -> Arc<Principal> {
        Arc::clone(&self.state.lock().principal)
    }

    /// The token was renewed, perhaps with other roles: what it gives no right to any more is closed.
    pub fn set_principal(&self, principal: Principal) {
        let principal = Arc::new(principal);
        let lost: Vec<_> = {
            let mut state = self.state.lock();
            state.principal = Arc::clone(&principal);
            let may_read = |session: &Session| principal.is_admin() || session.owner == principal.user;
            let lost = state.opened.iter().filter(|opened| !may_read(&opened.session));
            lost.map(|opened| opened.session.id).collect()
        };
        for session in lost.into_iter().filter_map(|id| self.forget(id)) {
            session.unsubscribe(self);
        }
    }

    /// The link that leads to it.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Has the connection ended?
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends it here: every session is left. The gateway is not told.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let (opened, queue, receipt) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.opened), std::mem::take(&mut state.queue), state.receipt.take())
        };
        drop((queue, receipt));
        for opened in opened {
            opened.session.unsubscribe(self);
        }
    }

    /// Ends it here and tells the gateway to close the socket.
    pub fn kick(&self, close_code: u32, code: &str, message: &str) {
        self.close();
        let notice = Notice { code: code.into(), message: message.into(), session_id: String::new() };
        self.outbox.kick(Kick { conn: self.conn, close_code, notice: Some(notice) });
    }

    /// Queues a request. `true`: nobody works on this connection's requests, the caller must.
    pub fn enqueue(&self, request: QueuedRequest) -> bool {
        let mut state = self.state.lock();
        state.queue.push_back(request);
        !std::mem::replace(&mut state.busy, true)
    }

    /// Keeps requests waiting until the caller works on them.
    pub fn hold_requests(&self) {
        self.state.lock().busy = true;
    }

    /// How many requests wait.
    pub fn queued(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// The next request in order; `None` ends the caller's work.
    pub fn next_request(&self) -> Option<QueuedRequest> {
        let mut state = self.state.lock();
        let next = state.queue.pop_front();
        if next.is_none() {
            state.busy = false;
            state.queue = VecDeque::new();
        }
        next
    }

    /// Answers a request; no message is a bare acknowledgement.
    pub fn reply(&self, request_no: u32, message: Option<Message>) {
        self.outbox.reply(self.conn, request_no, message.map(|message| ServerMessage { message: Some(message) }));
    }

    /// Answers a request with a fault.
    pub fn fail(&self, request_no: u32, failure: &Failure) {
        self.reply(request_no, Some(Message::Error(failure.into())));
    }

    /// Sends an event to this connection alone.
    pub fn deliver(&self, message: Message) {
        self.outbox.deliver(vec![self.conn], encode(message), 0);
    }

    /// Sends an event and waits until it has left the gateway's queue, so that a long replay takes the pace of the
    /// socket.
    pub async fn deliver_paced(&self, message: Message, patience: Duration) -> Paced {
        let (sender, receiver) = oneshot::channel();
        let receipt = self.receipts.fetch_add(1, Ordering::Relaxed) + 1;
        self.state.lock().receipt = Some((receipt, sender));
        if self.is_closed() {
            return Paced::Gone;
        }
        self.outbox.deliver(vec![self.conn], encode(message), receipt);
        match tokio::time::timeout(patience, receiver).await {
            Ok(Ok(())) => Paced::Taken,
            Ok(Err(_)) => Paced::Gone,
            Err(_) if self.is_closed() => Paced::Gone,
            Err(_) => Paced::TooSlow,
        }
    }

    /// The gateway reports that a paced event has left its queue.
    pub fn receipt(&self, receipt: u64) {
        let mut state = self.state.lock();
        if state.receipt.as_ref().is_some_and(|(waiting, _)| *waiting <= receipt)
            && let Some((_, waiter)) = state.receipt.take()
        {
            // The replay may have given up waiting.
            let _ = waiter.send(());
        }
    }

    /// Remembers that the session is open here. `false`: the connection has ended meanwhile.
    pub fn remember(&self, session: Arc<Session>) -> bool {
        let mut state = self.state.lock();
        if self.is_closed() {
            return false;
        }
        if !state.opened.iter().any(|opened| opened.session.id == session.id) {
            state.opened.push(Opened { session, last_typing: None });
        }
        true
    }

    /// Forgets the session and returns it.
    pub fn forget(&self, session: SessionId) -> Option<Arc<Session>> {
        let mut state = self.state.lock();
        let at = state.opened.iter().position(|opened| opened.session.id == session)?;
        Some(state.opened.swap_remove(at).session)
    }

    /// The session, if this connection has it open.
    pub fn opened(&self, session: SessionId) -> Option<Arc<Session>> {
        let state = self.state.lock();
        state.opened.iter().find(|opened| opened.session.id == session).map(|opened| Arc::clone(&opened.session))
    }

    /// May a typing notice be passed on now?
    pub fn may_type(&self, session: SessionId, now: Instant) -> bool {
        let mut state = self.state.lock();
        let Some(opened) = state.opened.iter_mut().find(|opened| opened.session.id == session) else { return false };
        if opened.last_typing.is_some_and(|last| now.duration_since(last) < TYPING_INTERVAL) {
            return false;
        }
        opened.last_typing = Some(now);
        true
    }
}

fn encode(message: Message) -> Bytes {
    ServerMessage { message: Some(message) }.encode_to_vec().into()
}
