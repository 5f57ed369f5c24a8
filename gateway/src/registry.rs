//! The registry of the connections of this process: from the number of a connection to its send queue. It passes the
//! frames of brains on to the connections, and closes all connections at the end of the process. Nothing here waits for
//! a single connection, because one link carries thousands of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use chatbox_link::LinkEvents;
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::proto;
use dashmap::DashMap;
use rand::RngExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::frame;
use crate::metrics::Metrics;
use crate::send_queue::{CloseCode, Item, SendQueue, SharedEvent};

/// The interval at which a drain closes the connections that are due.
const DRAIN_STEP: Duration = Duration::from_millis(50);
/// How long connections that were closed without a drain may take to tell their brains.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The connections of this process.
#[derive(Debug)]
pub struct ConnectionRegistry {
    connections: DashMap<u64, Arc<SendQueue>>,
    /// The number of the newest connection. Numbers are not reused, so a late frame cannot reach another connection.
    last: AtomicU64,
    /// The code with which all connections were closed; later connections are closed with it at once. 0: not closed.
    closing: AtomicU16,
    emptied: Notify,
    metrics: Metrics,
}

impl ConnectionRegistry {
    /// An empty registry.
    pub fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            connections: DashMap::new(),
            last: AtomicU64::new(0),
            closing: AtomicU16::new(0),
            emptied: Notify::new(),
            metrics,
        })
    }

    /// Resolves once there is no connection.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.connections.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Adds a connection and returns its number. After [`ConnectionRegistry::close_all`] the connection is closed at
    /// once.
    pub(crate) fn add(&self, queue: Arc<SendQueue>) -> u64 {
        let conn = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.connections.insert(conn, Arc::clone(&queue));
        self.metrics.connections.inc();
        // The code is read after the insertion: either it is seen here, or `close_all` sees the connection.
        match self.closing.load(Ordering::SeqCst) {
            0 => {}
            code => queue.close(CloseCode(code), None),
        }
        conn
    }

    /// Removes a connection. A second removal has no effect.
    pub(crate) fn remove(&self, conn: u64) {
        if self.connections.remove(&conn).is_some() {
            self.metrics.connections.dec();
        }
        if self.connections.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Announces the drain to every connection and closes each with 1012 at a random time within `window`, so that the
    /// clients do not all reconnect at once. Returns when every connection has ended or was closed.
    pub async fn drain(&self, window: Duration) {
        let start = Instant::now();
        let mut plan = self.announce_drain(window).into_iter().peekable();
        tracing::info!(connections = plan.len(), ?window, "drain: closing all connections");
        while plan.peek().is_some() && !self.connections.is_empty() {
            while let Some((_, conn)) = plan.next_if(|(wait, _)| start.elapsed() >= *wait) {
                if let Some(queue) = self.connections.get(&conn) {
                    queue.close(CloseCode::RESTART, None);
                }
            }
            tokio::time::sleep(DRAIN_STEP).await;
        }
        // Connections that were added after the plan was made.
        self.close_all(CloseCode::RESTART);
    }

    /// Chooses a closing time for every connection and tells its client. Returns the times in ascending order.
    fn announce_drain(&self, window: Duration) -> Vec<(Duration, u64)> {
        let mut plan: Vec<(Duration, u64)> = Vec::with_capacity(self.connections.len());
        for entry in &self.connections {
            let wait = window.mul_f64(rand::rng().random_range(0.0..1.0));
            plan.push((wait, *entry.key()));
            let notice = frame::notice("server_draining", "The server restarts. Please connect again.", Some(wait));
            if let Some(notice) = notice {
                entry.value().push_own(Item::Text(notice));
            }
        }
        plan.sort_unstable();
        plan
    }

    /// Closes every connection, and every connection that is added later.
    pub fn close_all(&self, code: CloseCode) {
        self.closing.store(code.0, Ordering::SeqCst);
        for entry in &self.connections {
            entry.value().close(code, None);
        }
    }

    /// Resolves once the process drains and no connection needs its link any more. A hard stop closes all connections
    /// and waits for them only briefly.
    pub async fn links_unused(self: Arc<Self>, lifecycle: Lifecycle) {
        lifecycle.draining().cancelled().await;
        tokio::select! {
            () = self.emptied() => {}
            () = lifecycle.stopping().cancelled() => {
                self.close_all(CloseCode::GOING_AWAY);
                drop(tokio::time::timeout(CLOSE_TIMEOUT, self.emptied()).await);
            }
        }
    }
}

impl LinkEvents for ConnectionRegistry {
    /// Connections that have ended, or that use another link by now, are skipped.
    fn deliver(&self, link: u64, deliver: proto::Deliver) {
        let Some(event) = SharedEvent::decode(&deliver.message) else { return };
        let event = Arc::new(event);
        for conn in &deliver.conns {
            if let Some(queue) = self.connections.get(conn) {
                queue.push_event(link, &event, deliver.receipt, &self.metrics);
            }
        }
    }

    fn reply(&self, link: u64, reply: proto::Reply) {
        if let Some(queue) = self.connections.get(&reply.conn) {
            queue.push_reply(link, reply.request_no, reply.message, &self.metrics);
        }
    }

    fn kick(&self, link: u64, kick: proto::Kick) {
        if let Some(queue) = self.connections.get(&kick.conn) {
            let notice = kick.notice.as_ref().and_then(|notice| frame::notice(&notice.code, &notice.message, None));
            queue.close_from(link, CloseCode::requested(kick.close_code), notice);
        }
    }

    fn links_changed(&self, ready: &[u64]) {
        for entry in &self.connections {
            entry.value().relink_unless(|link| ready.contains(&link));
        }
    }
}
