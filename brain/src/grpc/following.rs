//! One replay of a session to a connection. The replay stops once the connection has closed the session, has opened it again, may
//! not read it any more, or has ended.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::ids::SessionId;

use super::connection::Connection;
use super::encode;
use crate::session::audience::{Follower, Paced, Subscriber};
use crate::session::event::SessionEvent;

/// A replay of a session to a connection.
pub(super) struct Following {
    connection: Arc<Connection>,
    session: SessionId,
    /// The number of the replay on its connection.
    replay: u64,
}

impl Following {
    /// The replay with this number, which the connection has just given.
    pub(super) fn new(connection: Arc<Connection>, session: SessionId, replay: u64) -> Self {
        Self { connection, session, replay }
    }

    /// The connection.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Follower for Following {
    fn subscriber(&self) -> Arc<dyn Subscriber> {
        Arc::clone(&self.connection) as Arc<dyn Subscriber>
    }

    fn is_closed(&self) -> bool {
        !self.connection.replays(self.session, self.replay)
    }

    fn deliver(&self, event: SessionEvent<'_>) {
        self.connection.send_replayed(self.session, self.replay, encode::event(self.session, &event));
    }

    fn deliver_paced(&self, event: SessionEvent<'_>, patience: Duration) -> impl Future<Output = Paced> + Send {
        self.connection.send_paced(self.session, self.replay, encode::event(self.session, &event), patience)
    }
}
