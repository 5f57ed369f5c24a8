//! All client connections of this brain by user: how many one user may hold, and which one a device replaces.

use std::collections::HashMap;
use std::sync::Arc;

use chatbox_shared::ids::UserId;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::connection::Connection;

/// WebSocket close code: another connection has taken this one's place.
const CLOSE_REPLACED: u32 = 4002;

/// The connections by user, oldest first.
#[derive(Debug, Default)]
pub struct Connections {
    users: Mutex<HashMap<UserId, SmallVec<[Arc<Connection>; 1]>>>,
}

impl Connections {
    /// Adds a connection; the one it replaces (same device, else the oldest of more than `per_user`) is closed.
    pub fn add(&self, connection: &Arc<Connection>, per_user: usize) {
        let replaced = {
            let mut users = self.users.lock();
            let held = users.entry(connection.principal().user.clone()).or_default();
            // The same connection over a new link, while the old one is not known to be lost yet: it replaces nobody.
            held.retain(|other| other.id != connection.id);
            let same_device = held.iter().position(|other| other.device.is_some() && other.device == connection.device);
            let replaced = match same_device {
                Some(at) => Some(held.remove(at)),
                None if held.len() >= per_user => Some(held.remove(0)),
                None => None,
            };
            let place = held.partition_point(|other| other.connected_at <= connection.connected_at);
            held.insert(place, Arc::clone(connection));
            replaced
        };
        if let Some(replaced) = replaced {
            replaced.kick(CLOSE_REPLACED, "connection_replaced", "Another connection has taken this one's place.");
        }
    }

    /// Removes a connection that has ended; one that was replaced is gone already.
    pub fn remove(&self, connection: &Arc<Connection>) {
        let mut users = self.users.lock();
        let user = connection.principal().user.clone();
        if let Some(held) = users.get_mut(&user) {
            held.retain(|other| !Arc::ptr_eq(other, connection));
            if held.is_empty() {
                users.remove(&user);
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.users.lock().values().map(SmallVec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use chatbox_shared::auth::Principal;
    use chatbox_shared::clock::Timestamp;
    use chatbox_shared::ids::ConnectionId;
    use chatbox_shared::proto::brain_frame::Frame;

    use super::*;
    use crate::connection::Announced;
    use crate::grpc::outbox::{Outbox, OutboxReader, outbox};

    fn connection(conn: u64, device: Option<&str>, outbox: &Outbox) -> Arc<Connection> {
        let connected_at = Timestamp(i64::try_from(conn).unwrap());
        let device = device.map(Into::into);
        announced(Announced { conn, id: ConnectionId::generate(), device, connected_at }, outbox)
    }

    fn announced(announced: Announced, outbox: &Outbox) -> Arc<Connection> {
        let principal = Principal { user: UserId::new("u"), name: None, roles: Vec::new() };
        Arc::new(Connection::new(announced, principal, outbox.clone()))
    }

    async fn kicked(reader: &mut OutboxReader) -> (u64, u32) {
        match reader.next().await.and_then(|frame| frame.frame) {
            Some(Frame::Kick(kick)) => (kick.conn, kick.close_code),
            other => panic!("expected a kick, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn the_same_device_is_replaced_before_the_oldest() {
        let (outbox, mut reader) = outbox();
        let connections = Connections::default();
        connections.add(&connection(1, None, &outbox), 2);
        connections.add(&connection(2, Some("phone"), &outbox), 2);
        connections.add(&connection(3, Some("phone"), &outbox), 2);
        assert_eq!(kicked(&mut reader).await, (2, 4002));
        connections.add(&connection(4, None, &outbox), 2);
        assert_eq!(kicked(&mut reader).await, (1, 4002));
        assert_eq!(connections.count(), 2);
    }

    #[tokio::test]
    async fn a_connection_that_comes_again_over_a_new_link_replaces_nobody_and_keeps_its_age() {
        let (outbox, mut reader) = outbox();
        let connections = Connections::default();
        let first = connection(1, None, &outbox);
        connections.add(&first, 2);
        connections.add(&connection(2, None, &outbox), 2);
        let again = Announced { conn: 11, id: first.id, device: None, connected_at: first.connected_at };
        connections.add(&announced(again, &outbox), 2);
        assert_eq!(connections.count(), 2);
        connections.add(&connection(3, None, &outbox), 2);
        assert_eq!(kicked(&mut reader).await, (11, 4002));
    }

    #[tokio::test]
    async fn a_connection_that_left_frees_its_place() {
        let (outbox, _reader) = outbox();
        let connections = Connections::default();
        let first = connection(1, None, &outbox);
        connections.add(&first, 2);
        connections.remove(&first);
        assert_eq!(connections.count(), 0);
    }
}
