//! Domain types of the gateway as protobuf.

use chatbox_shared::auth::Principal;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::proto;

use crate::connection::Accepted;

/// Who is connected.
pub(super) fn principal(principal: &Principal) -> proto::Principal {
    proto::Principal {
        user_id: principal.user.as_str().to_owned(),
        name: principal.name.clone().unwrap_or_default(),
        roles: principal.roles.clone(),
    }
}

/// The frame that brings a connection to a brain.
pub(super) fn open(conn: u64, accepted: &Accepted, since: Timestamp, resume: Vec<proto::Resume>) -> proto::Open {
    proto::Open {
        conn,
        connection_id: accepted.id.to_string(),
        principal: Some(principal(&accepted.verified.principal)),
        device: accepted.device.clone().unwrap_or_default(),
        remote_ip: accepted.remote_ip.to_string(),
        connected_at_ms: since.0,
        resume,
    }
}
