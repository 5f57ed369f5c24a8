//! The first frame of a connection.

use chatbox_shared::clock::Timestamp;
use tungstenite::Utf8Bytes;

use super::types::{Accepted, ConnectionContext};
use crate::frame;

/// The `welcome` of a connection, at the time `now`.
pub(super) fn welcome(context: &ConnectionContext, accepted: &Accepted, now: Timestamp) -> Option<Utf8Bytes> {
    let (info, settings) = (context.links.info(), &context.settings);
    frame::Welcome {
        connection: accepted.id,
        principal: &accepted.verified.principal,
        time: now,
        heartbeat: settings.heartbeat_interval,
        models: &info.models,
        default_model: &info.default_model,
        limits: frame::WelcomeLimits {
            max_frame_bytes: settings.max_frame_bytes,
            max_content_chars: info.max_content_chars,
            replay_entries: info.replay_entries,
            requests_per_second: settings.requests_per_second,
            request_burst: settings.request_burst,
            max_page: frame::MAX_PAGE,
        },
    }
    .encode()
}
