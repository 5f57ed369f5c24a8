//! What the uplink of a connection reads from the connection, as protobuf.

use chatbox_link::{Rebound, UplinkSource};
use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::UserId;
use chatbox_shared::proto;

use super::requests::Requests;
use super::sessions::Sessions;
use super::types::Accepted;
use crate::send_queue::{Item, SendQueue};

/// The parts of a connection that its uplink reads.
pub(super) struct UplinkView<'a> {
    pub(super) conn: u64,
    pub(super) since: Timestamp,
    pub(super) accepted: &'a Accepted,
    pub(super) queue: &'a SendQueue,
    pub(super) sessions: &'a Sessions,
    pub(super) requests: &'a Requests,
}

impl UplinkSource for UplinkView<'_> {
    fn conn(&self) -> u64 {
        self.conn
    }

    fn user(&self) -> &UserId {
        &self.accepted.verified.principal.user
    }

    fn principal(&self) -> proto::Principal {
        let principal = &self.accepted.verified.principal;
        proto::Principal {
            user_id: principal.user.as_str().to_owned(),
            name: principal.name.clone().unwrap_or_default(),
            roles: principal.roles.clone(),
        }
    }

    fn open(&self, resume: Vec<proto::Resume>) -> proto::Open {
        proto::Open {
            conn: self.conn,
            connection_id: self.accepted.id.to_string(),
            principal: Some(self.principal()),
            device: self.accepted.device.clone().unwrap_or_default(),
            remote_ip: self.accepted.remote_ip.to_string(),
            connected_at_ms: self.since.0,
            resume,
        }
    }

    fn request(&self, no: u32) -> Option<proto::ClientMessage> {
        self.requests.for_brain(no)
    }

    fn rebind(&self, link: u64) -> Rebound {
        self.queue.rebind(link, |waiting| self.after(waiting))
    }

    fn unbind(&self) {
        self.queue.rebind(0, |_| ());
    }
}

impl UplinkView<'_> {
    /// What the new brain must know once the client has received the waiting items.
    fn after(&self, waiting: &mut dyn Iterator<Item = &Item>) -> Rebound {
        let mut sessions = self.sessions.clone();
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
                    if let Some(request) = self.requests.get(*no) {
                        let reply = message.as_ref().and_then(|message| message.message.as_ref());
                        sessions.replied(&request.message, reply);
                        answered.push(*no);
                    }
                }
                Item::Text(_) | Item::Ping => {}
            }
        }
        let unanswered = self.requests.numbers().filter(|no| !answered.contains(no)).collect();
        Rebound { resume: sessions.resume(), unanswered }
    }
}
