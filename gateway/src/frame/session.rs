//! Sessions and models as clients see them.

use chatbox_shared::proto::{self, SessionState};
use serde::Serialize;

use super::scalars::{AdminJson, Time, number};

/// A model that a client may select.
#[derive(Serialize)]
pub(super) struct ModelJson<'a> {
    id: &'a str,
    name: &'a str,
}

impl<'a> ModelJson<'a> {
    pub(super) fn of(model: &'a proto::Model) -> Self {
        Self { id: &model.id, name: &model.name }
    }
}

/// A session's summary.
#[derive(Serialize)]
pub(super) struct SessionJson<'a> {
    id: &'a str,
    epoch: &'a str,
    name: &'a str,
    state: &'static str,
    model_id: &'a str,
    seq: u64,
    created_at: Time,
    last_activity_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Time>,
    message_count: u64,
    unread: u64,
    admin_assisted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    assisting_admin: Option<AdminJson<'a>>,
    help_requested: bool,
    tokens: TokensJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<bool>,
}

#[derive(Serialize)]
struct TokensJson {
    input: u64,
    output: u64,
}

impl<'a> SessionJson<'a> {
    /// The summary as an element of a list.
    pub(super) fn of(session: &'a proto::Session) -> Self {
        Self {
            id: &session.id,
            epoch: &session.epoch,
            name: &session.name,
            state: match session.state() {
                SessionState::Ended => "ended",
                SessionState::Active | SessionState::Unspecified => "active",
            },
            model_id: &session.model_id,
            seq: session.seq,
            created_at: Time(session.created_at_ms),
            last_activity_at: Time(session.last_activity_at_ms),
            ended_at: Some(session.ended_at_ms).filter(|at| *at != 0).map(Time),
            message_count: session.message_count,
            unread: session.unread,
            admin_assisted: session.admin_assisted,
            assisting_admin: session.assisting_admin.as_ref().map(AdminJson::of),
            help_requested: session.help_requested,
            tokens: TokensJson { input: session.input_tokens, output: session.output_tokens },
            truncated_before: None,
            reset: None,
        }
    }

    /// The summary as the reply to `session_open`, which has two more fields.
    pub(super) fn replied(session: &'a proto::Session, info: &proto::SessionInfo) -> Self {
        Self {
            truncated_before: number(info.truncated_before),
            reset: Some(info.reset).filter(|reset| *reset),
            ..Self::of(session)
        }
    }
}
