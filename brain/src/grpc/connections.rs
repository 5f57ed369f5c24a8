//! All client connections of this brain by user. Limits how many one user may hold, and replaces the connection of a device
//! that connects again.

use std::collections::HashMap;
use std::sync::Arc;

use chatbox_shared::ids::UserId;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::connection::Connection;
use super::kick::KickReason;

/// The connections by user, each user's oldest first.
#[derive(Debug, Default)]
pub struct Connections {
    users: Mutex<HashMap<UserId, SmallVec<[Arc<Connection>; 1]>>>,
}

impl Connections {
    /// Adds a connection. Of the connections of one device all but the newest end, and then the user's oldest while there are more
    /// than `per_user`. What counts is when a gateway accepted them: a connection that moves here from another brain may be older
    /// than those that are here already. `false`: the added connection itself has ended.
    pub fn add(&self, connection: &Arc<Connection>, per_user: usize) -> bool {
        let replaced = {
            let mut users = self.users.lock();
            let held = users.entry(connection.principal().user.clone()).or_default();
            // The same connection over a new link, before the loss of the old link was noticed: it replaces no other one.
            held.retain(|other| other.id != connection.id);
            let place = held.partition_point(|other| other.connected_at <= connection.connected_at);
            held.insert(place, Arc::clone(connection));
            let mut replaced = take_replaced(held, connection.device.as_deref());
            let above = held.len().saturating_sub(per_user);
            replaced.extend(held.drain(..above));
            replaced
        };
        for replaced in &replaced {
            replaced.kick(KickReason::Replaced);
        }
        !replaced.iter().any(|replaced| Arc::ptr_eq(replaced, connection))
    }

    /// Removes a connection that has ended. Does nothing for one that was replaced.
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

    /// How many connections there are.
    pub fn count(&self) -> usize {
        self.users.lock().values().map(SmallVec::len).sum()
    }
}

/// Takes all connections of this device but the newest.
fn take_replaced(held: &mut SmallVec<[Arc<Connection>; 1]>, device: Option<&str>) -> Vec<Arc<Connection>> {
    let mut replaced = Vec::new();
    let same = |other: &Arc<Connection>| device.is_some() && other.device.as_deref() == device;
    while let Some(first) = held.iter().position(same)
        && held.iter().skip(first + 1).any(same)
    {
        replaced.push(held.remove(first));
    }
    replaced
}

#[cfg(test)]
mod tests {
    use chatbox_shared::auth::Principal;
    use chatbox_shared::clock::Timestamp;
    use chatbox_shared::ids::ConnectionId;
    use chatbox_shared::proto::brain_frame::Frame;

    use super::*;
    use crate::grpc::connection::Announced;
    use crate::grpc::send_queue::{SendQueue, SendQueueReader, send_queue};

    fn connection(conn: u64, device: Option<&str>, queue: &Arc<SendQueue>) -> Arc<Connection> {
        let connected_at = Timestamp(i64::try_from(conn).unwrap());
        let device = device.map(Into::into);
        announced(Announced { conn, id: ConnectionId::generate(), device, connected_at }, queue)
    }

    fn announced(announced: Announced, queue: &Arc<SendQueue>) -> Arc<Connection> {
        let principal = Principal { user: UserId::new("u"), name: None, roles: Vec::new() };
        Arc::new(Connection::new(announced, principal, Arc::clone(queue)))
    }

    async fn kicked(reader: &mut SendQueueReader) -> (u64, u32) {
        match reader.next().await.and_then(|frame| frame.frame) {
            Some(Frame::Kick(kick)) => (kick.conn, kick.close_code),
            other => panic!("expected a kick, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn the_same_device_is_replaced_before_the_oldest() {
        let (queue, mut reader) = send_queue();
        let connections = Connections::default();
        connections.add(&connection(1, None, &queue), 2);
        connections.add(&connection(2, Some("phone"), &queue), 2);
        connections.add(&connection(3, Some("phone"), &queue), 2);
        assert_eq!(kicked(&mut reader).await, (2, 4002));
        connections.add(&connection(4, None, &queue), 2);
        assert_eq!(kicked(&mut reader).await, (1, 4002));
        assert_eq!(connections.count(), 2);
    }

    #[tokio::test]
    async fn a_connection_that_comes_again_over_a_new_link_replaces_nobody_and_keeps_its_age() {
        let (queue, mut reader) = send_queue();
        let connections = Connections::default();
        let first = connection(1, None, &queue);
        connections.add(&first, 2);
        connections.add(&connection(2, None, &queue), 2);
        let again = Announced { conn: 11, id: first.id, device: None, connected_at: first.connected_at };
        connections.add(&announced(again, &queue), 2);
        assert_eq!(connections.count(), 2);
        connections.add(&connection(3, None, &queue), 2);
        assert_eq!(kicked(&mut reader).await, (11, 4002));
    }

    #[tokio::test]
    async fn a_connection_that_left_frees_its_place() {
        let (queue, _reader) = send_queue();
        let connections = Connections::default();
        let first = connection(1, None, &queue);
        connections.add(&first, 2);
        connections.remove(&first);
        assert_eq!(connections.count(), 0);
    }
}
