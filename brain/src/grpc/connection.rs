//! One client connection as the brain knows it: its principal, its link, its requests, and the sessions it has open. The socket
//! belongs to the gateway.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chatbox_shared::auth::Principal;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{ConnectionId, SessionId, UserId};
use chatbox_shared::proto::{ClientMessage, ServerMessage, server_message::Message};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::encode;
use super::kick::KickReason;
use super::send_queue::SendQueue;
use crate::service::sessions::may_follow;
use crate::session::audience::{Outlet, Paced, Subscriber};
use crate::session::handle::Session;

/// The least time between two typing events of one connection in one session.
const TYPING_INTERVAL: Duration = Duration::from_secs(1);

/// One client connection. Kept small, because there are tens of thousands.
#[derive(Debug)]
pub struct Connection {
    /// Its number on its link.
    pub conn: u64,
    /// Its id in the cluster.
    pub id: ConnectionId,
    /// The device, if the client names one.
    pub device: Option<Box<str>>,
    /// When its gateway accepted it. A move to another brain does not change this.
    pub connected_at: Timestamp,
    queue: Arc<SendQueue>,
    state: Mutex<State>,
    closed: AtomicBool,
    /// The number of the last receipt that was requested.
    receipts: AtomicU64,
    /// Held by the replay under way: the replays of a connection run one after the other, in the order of their requests.
    pub(super) replaying: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    principal: Arc<Principal>,
    opened: SmallVec<[Opened; 1]>,
    /// Sessions of a moved connection that are not opened here yet.
    resuming: Vec<SessionId>,
    /// The number of the last replay that began.
    replays: u64,
    requests: VecDeque<QueuedRequest>,
    /// A task answers the requests, or will.
    busy: bool,
    /// The receipt a replay waits for.
    receipt: Option<(u64, oneshot::Sender<()>)>,
}

/// A connection as its gateway announces it.
#[derive(Debug, Clone)]
pub struct Announced {
    /// Its number on its link.
    pub conn: u64,
    /// Its id in the cluster.
    pub id: ConnectionId,
    /// The device, if the client names one.
    pub device: Option<Box<str>>,
    /// When it was accepted.
    pub connected_at: Timestamp,
}

/// A session this connection has open. Holding the session keeps it in memory.
#[derive(Debug)]
struct Opened {
    session: Arc<Session>,
    /// The number of the replay that began last. An earlier replay of the session must stop.
    replay: u64,
    /// When a typing event was last passed on.
    last_typing: Option<Instant>,
}

/// A request that waits for the requests before it.
#[derive(Debug)]
pub struct QueuedRequest {
    /// The gateway's number for it.
    pub request_no: u32,
    /// The request.
    pub message: ClientMessage,
    /// When it must have its reply, whatever stands before it.
    pub deadline: tokio::time::Instant,
}

impl Connection {
    /// A connection that its gateway has just announced.
    pub fn new(announced: Announced, principal: Principal, queue: Arc<SendQueue>) -> Self {
        Self {
            conn: announced.conn,
            id: announced.id,
            device: announced.device,
            connected_at: announced.connected_at,
            queue,
            state: Mutex::new(State {
                principal: Arc::new(principal),
                opened: SmallVec::new(),
                resuming: Vec::new(),
                replays: 0,
                requests: VecDeque::new(),
                busy: false,
                receipt: None,
            }),
            closed: AtomicBool::new(false),
            receipts: AtomicU64::new(0),
            replaying: tokio::sync::Mutex::default(),
        }
    }

    /// The principal of the client.
    pub fn principal(&self) -> Arc<Principal> {
        Arc::clone(&self.state.lock().principal)
    }

    /// Takes the principal of a renewed token: the same user, perhaps with other roles. Sessions that the user may not read any
    /// more are closed.
    pub fn set_principal(&self, principal: Principal) {
        let principal = Arc::new(principal);
        let lost: Vec<_> = {
            let mut state = self.state.lock();
            state.principal = Arc::clone(&principal);
            let lost = state.opened.iter().filter(|opened| !may_follow(&principal, &opened.session));
            lost.map(|opened| opened.session.id).collect()
        };
        for session in lost.into_iter().filter_map(|id| self.forget(id)) {
            session.unsubscribe(self);
        }
    }

    /// Ends the connection on this brain and leaves every session, without telling the gateway.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let (opened, requests, receipt) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.opened), std::mem::take(&mut state.requests), state.receipt.take())
        };
        drop((requests, receipt));
        for opened in opened {
            opened.session.unsubscribe(self);
        }
    }

    /// Ends the connection on this brain and tells the gateway to close the socket.
    pub fn kick(&self, reason: KickReason) {
        self.close();
        self.queue.kick(reason.frame(self.conn));
    }

    /// Queues a request. `true`: no task answers the requests of this connection, so the caller must start one.
    pub fn enqueue(&self, request: QueuedRequest) -> bool {
        let mut state = self.state.lock();
        state.requests.push_back(request);
        !std::mem::replace(&mut state.busy, true)
    }

    /// How many requests wait.
    pub fn queued(&self) -> usize {
        self.state.lock().requests.len()
    }

    /// The next request in order. `None`: the caller must stop.
    pub fn next_request(&self) -> Option<QueuedRequest> {
        let mut state = self.state.lock();
        let next = state.requests.pop_front();
        if next.is_none() {
            state.busy = false;
            state.requests = VecDeque::new();
        }
        next
    }

    /// Replies to a request. No message is a bare acknowledgement.
    pub fn reply(&self, request_no: u32, message: Option<Message>) {
        self.queue.reply(self.conn, request_no, message.map(|message| ServerMessage { message: Some(message) }));
    }

    /// Replies to a request with an error.
    pub fn fail(&self, request_no: u32, failure: &Failure) {
        self.reply(request_no, Some(Message::Error(failure.into())));
    }

    /// Sends a message to this connection alone.
    pub fn send(&self, message: Message) {
        self.queue.deliver(vec![self.conn], encode::message(message), 0);
    }

    /// Sends an encoded message of a replay, unless the replay must stop.
    pub(super) fn send_replayed(&self, session: SessionId, replay: u64, message: Bytes) {
        // Under the lock, so that nothing of a session follows the reply to a request that closes it.
        let state = self.state.lock();
        if state.replays(session, replay) {
            self.queue.deliver(vec![self.conn], message, 0);
        }
    }

    /// As [`Connection::send_replayed`], then waits until the message has left the gateway's queue for the socket.
    pub(super) async fn send_paced(
        &self,
        session: SessionId,
        replay: u64,
        message: Bytes,
        patience: Duration,
    ) -> Paced {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if !state.replays(session, replay) {
                return Paced::Gone;
            }
            let receipt = self.receipts.fetch_add(1, Ordering::Relaxed) + 1;
            state.receipt = Some((receipt, sender));
            self.queue.deliver(vec![self.conn], message, receipt);
        }
        match tokio::time::timeout(patience, receiver).await {
            Ok(Ok(())) => Paced::Taken,
            Ok(Err(_)) => Paced::Gone,
            Err(_) if self.is_closed() => Paced::Gone,
            Err(_) => Paced::TooSlow,
        }
    }

    /// Whether this replay of the session may go on.
    pub(super) fn replays(&self, session: SessionId, replay: u64) -> bool {
        self.state.lock().replays(session, replay)
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The gateway reports that the event with this receipt, and all before it, have left its queue.
    pub fn receipt(&self, receipt: u64) {
        let mut state = self.state.lock();
        if state.receipt.as_ref().is_some_and(|(waiting, _)| *waiting <= receipt)
            && let Some((_, waiter)) = state.receipt.take()
        {
            // The replay may have stopped waiting.
            let _ = waiter.send(());
        }
    }

    /// Marks the session as open and returns the number of a new replay. An earlier replay of the session stops.
    ///
    /// # Errors
    /// `not_found` if the connection has ended, or if its principal may not read the session any more. `conflict` if it has `max`
    /// other sessions open.
    pub(super) fn open(&self, session: &Arc<Session>, max: usize) -> Result<u64, Failure> {
        let mut state = self.state.lock();
        let others = state.opened.iter().filter(|opened| opened.session.id != session.id).count();
        if others >= max {
            let text = format!("This connection has {max} sessions open; close one first.");
            return Err(Failure::with_message(ErrorCode::Conflict, text));
        }
        state.resuming.retain(|id| *id != session.id);
        self.begin_replay(&mut state, session)
    }

    /// As [`Connection::open`], for a session that a moved connection had open elsewhere. `None`: its client has closed the
    /// session or opened it again meanwhile.
    ///
    /// # Errors
    /// `not_found` as for [`Connection::open`].
    pub(super) fn open_resumed(&self, session: &Arc<Session>) -> Result<Option<u64>, Failure> {
        let mut state = self.state.lock();
        let Some(at) = state.resuming.iter().position(|id| *id == session.id) else { return Ok(None) };
        state.resuming.swap_remove(at);
        self.begin_replay(&mut state, session).map(Some)
    }

    /// The right to read is asked for here, under the lock under which a renewed token changes it.
    fn begin_replay(&self, state: &mut State, session: &Arc<Session>) -> Result<u64, Failure> {
        if self.is_closed() || !may_follow(&state.principal, session) {
            return Err(ErrorCode::NotFound.into());
        }
        state.replays += 1;
        let replay = state.replays;
        match state.opened.iter_mut().find(|opened| opened.session.id == session.id) {
            // An erased session and a new one may have the same id.
            Some(opened) => {
                opened.session = Arc::clone(session);
                opened.replay = replay;
            }
            None => state.opened.push(Opened { session: Arc::clone(session), replay, last_typing: None }),
        }
        Ok(replay)
    }

    /// The sessions that this moved connection had open elsewhere, and will follow here.
    pub(super) fn set_resuming(&self, sessions: Vec<SessionId>) {
        self.state.lock().resuming = sessions;
    }

    /// Whether the session is still to be opened for a moved connection.
    pub(super) fn is_resuming(&self, session: SessionId) -> bool {
        !self.is_closed() && self.state.lock().resuming.contains(&session)
    }

    /// Marks the session as closed, and returns it if it was open. A replay of it stops.
    pub fn forget(&self, session: SessionId) -> Option<Arc<Session>> {
        let mut state = self.state.lock();
        state.resuming.retain(|id| *id != session);
        let at = state.opened.iter().position(|opened| opened.session.id == session)?;
        Some(state.opened.swap_remove(at).session)
    }

    /// The session, if this connection has it open.
    pub fn opened(&self, session: SessionId) -> Option<Arc<Session>> {
        let state = self.state.lock();
        state.opened.iter().find(|opened| opened.session.id == session).map(|opened| Arc::clone(&opened.session))
    }

    /// Whether a typing event may be passed on now. If so, counts it.
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

impl Subscriber for Connection {
    fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::clone(&self.queue) as Arc<dyn Outlet>
    }

    fn number(&self) -> u64 {
        self.conn
    }

    fn user(&self) -> UserId {
        self.state.lock().principal.user.clone()
    }

    fn release(&self, session: SessionId) {
        self.forget(session);
    }
}

impl State {
    fn replays(&self, session: SessionId, replay: u64) -> bool {
        self.opened.iter().any(|opened| opened.session.id == session && opened.replay == replay)
    }
}
