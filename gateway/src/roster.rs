//! Who is connected here: from a connection's number to its outbound queue. The link's side of every connection; all
//! of it is quick and nothing waits, because one link speaks for thousands of connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use chatbox_shared::proto;
use dashmap::DashMap;
use rand::RngExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connection::CloseCode;
use crate::connection::event::Event;
use crate::connection::frame;
use crate::connection::outbound::{Item, Outbound};
use crate::metrics::Metrics;

/// How often connections are closed during a drain.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// The connections of this process.
#[derive(Debug)]
pub struct Roster {
    connections: DashMap<u64, Arc<Outbound>>,
    /// The last number given. Numbers are never used twice: a late frame cannot reach somebody else.
    last: AtomicU64,
    /// What everybody was closed with, and whoever comes later is closed with at once; 0: nobody was.
    closing: AtomicU16,
    emptied: Notify,
    metrics: Metrics,
}

impl Roster {
    /// An empty roster.
    pub fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            connections: DashMap::new(),
            last: AtomicU64::new(0),
            closing: AtomicU16::new(0),
            emptied: Notify::new(),
            metrics,
        })
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Is nobody connected?
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Resolves as soon as nobody is connected.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Adds a connection and numbers it. Once everybody was closed it is closed, too: its handshake was too late.
    pub(crate) fn add(&self, outbound: Arc<Outbound>) -> u64 {
        let conn = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.connections.insert(conn, Arc::clone(&outbound));
        self.metrics.connections.inc();
        // Looked at after it was added: either this is seen here, or `close_all` sees the connection.
        match self.closing.load(Ordering::SeqCst) {
            0 => {}
            code => outbound.close(CloseCode(code), None),
        }
        conn
    }

    /// Takes a connection out. Doing it again is harmless.
    pub(crate) fn remove(&self, conn: u64) {
        if self.connections.remove(&conn).is_some() {
            self.metrics.connections.dec();
        }
        if self.connections.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Queues one event for each connection it is for. Connections that are gone, or that use another link by now, are
    /// passed over.
    pub(crate) fn deliver(&self, link: u64, deliver: proto::Deliver) {
        let Some(event) = Event::decode(&deliver.message) else { return };
        let event = Arc::new(event);
        for conn in &deliver.conns {
            if let Some(outbound) = self.connections.get(conn) {
                outbound.push_event(link, &event, deliver.receipt, &self.metrics);
            }
        }
    }

    /// Queues the reply to a request.
    pub(crate) fn reply(&self, link: u64, reply: proto::Reply) {
        if let Some(outbound) = self.connections.get(&reply.conn) {
            outbound.push_reply(link, reply.request_no, reply.message, &self.metrics);
        }
    }

    /// Closes a connection because the brain says so.
    pub(crate) fn kick(&self, link: u64, kick: &proto::Kick) {
        if let Some(outbound) = self.connections.get(&kick.conn) {
            let notice = kick.notice.as_ref().and_then(|notice| frame::notice(&notice.code, &notice.message, None));
            outbound.close_from(link, CloseCode::asked(kick.close_code), notice);
        }
    }

    /// Lets every connection look for another link whose own one is not `good`.
    pub(crate) fn relink_unless(&self, good: impl Fn(u64) -> bool) {
        for entry in &self.connections {
            entry.value().relink_unless(&good);
        }
    }

    /// Tells everybody that the server drains and closes the connections with 1012, each at a random time within
    /// `window`, so that they do not all arrive elsewhere at once. Returns when everybody is gone, or was told to go.
    pub async fn drain(&self, window: Duration) {
        let start = Instant::now();
        let mut plan: Vec<(Duration, u64)> = Vec::with_capacity(self.len());
        for entry in &self.connections {
            let wait = window.mul_f64(rand::rng().random_range(0.0..1.0));
            plan.push((wait, *entry.key()));
            let notice = frame::notice("server_draining", "The server restarts. Please connect again.", Some(wait));
            if let Some(notice) = notice {
                entry.value().push_own(Item::Text(notice));
            }
        }
        tracing::info!(connections = plan.len(), ?window, "closing all connections");
        plan.sort_unstable();
        let mut plan = plan.into_iter().peekable();
        while plan.peek().is_some() && !self.is_empty() {
            while let Some((_, conn)) = plan.next_if(|(wait, _)| start.elapsed() >= *wait) {
                if let Some(outbound) = self.connections.get(&conn) {
                    outbound.close(CloseCode::RESTART, None);
                }
            }
            tokio::time::sleep(DRAIN_STEP).await;
        }
        // Whoever came in after the plan was made.
        self.close_all(CloseCode::RESTART);
    }

    /// Closes every connection at once, also those that come from now on.
    pub fn close_all(&self, code: CloseCode) {
        self.closing.store(code.0, Ordering::SeqCst);
        for entry in &self.connections {
            entry.value().close(code, None);
        }
    }
}
