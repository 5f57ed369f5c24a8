//! Entries, sessions and people as clients see them. What is absent in protobuf (empty, zero) is left out in JSON where
//! the contract marks it optional.

use chatbox_shared::clock::Timestamp;
use chatbox_shared::proto::{self, EntryKind, EntryState, SenderRole, SessionState};
use serde::{Serialize, Serializer};

/// Unix milliseconds, written as RFC 3339.
pub(super) struct Time(pub(super) i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Timestamp(self.0))
    }
}

/// A text that is absent when empty.
pub(super) fn text(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A number that is absent when zero.
fn number(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number > 0)
}

fn role(role: SenderRole) -> &'static str {
    match role {
        SenderRole::User => "user",
        SenderRole::Ai => "ai",
        SenderRole::Admin => "admin",
        SenderRole::System | SenderRole::Unspecified => "system",
    }
}

/// A model a client may choose.
#[derive(Serialize)]
pub(super) struct NamedModel<'a> {
    id: &'a str,
    name: &'a str,
}

impl<'a> NamedModel<'a> {
    pub(super) fn of(model: &'a proto::Model) -> Self {
        Self { id: &model.id, name: &model.name }
    }
}

/// Somebody with their role.
#[derive(Serialize)]
pub(super) struct PersonJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    role: &'static str,
}

impl<'a> PersonJson<'a> {
    pub(super) fn of(person: &'a proto::Person) -> Self {
        Self { id: text(&person.id), name: text(&person.name), role: role(person.role()) }
    }
}

/// An admin; the role is in the field's name.
#[derive(Serialize)]
struct Admin<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl<'a> Admin<'a> {
    fn of(person: &'a proto::Person) -> Self {
        Self { id: &person.id, name: text(&person.name) }
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
    assisting_admin: Option<Admin<'a>>,
    help_requested: bool,
    tokens: Tokens,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<bool>,
}

#[derive(Serialize)]
struct Tokens {
    input: u64,
    output: u64,
}

impl<'a> SessionJson<'a> {
    /// In a list.
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
            assisting_admin: session.assisting_admin.as_ref().map(Admin::of),
            help_requested: session.help_requested,
            tokens: Tokens { input: session.input_tokens, output: session.output_tokens },
            truncated_before: None,
            reset: None,
        }
    }

    /// On its own, with what only the reply to an open says.
    pub(super) fn replied(session: &'a proto::Session, info: &proto::SessionInfo) -> Self {
        Self {
            truncated_before: number(info.truncated_before),
            reset: Some(info.reset).filter(|reset| *reset),
            ..Self::of(session)
        }
    }
}

/// An entry of a session's log.
#[derive(Serialize)]
pub(super) struct EntryJson<'a> {
    seq: u64,
    rev: u32,
    id: &'a str,
    kind: &'static str,
    state: &'static str,
    sender: PersonJson<'a>,
    content: &'a str,
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    answer: Option<AnswerJson<'a>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    event: Option<EventJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson<'a>>,
}

#[derive(Serialize)]
struct AnswerJson<'a> {
    reply_to_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    regenerates: Option<u64>,
    model_id: &'a str,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<LatencyJson>,
}

#[derive(Serialize)]
struct UsageJson {
    input_tokens: u64,
    output_tokens: u64,
    estimated: bool,
}

#[derive(Serialize)]
struct LatencyJson {
    first_token: u64,
    total: u64,
}

#[derive(Serialize)]
struct EventJson<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<Admin<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct ErrorJson<'a> {
    code: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<Time>,
}

impl<'a> ErrorJson<'a> {
    fn of(error: &'a proto::EntryError) -> Self {
        let retry_at = Some(error.retry_at_ms).filter(|at| *at != 0).map(Time);
        Self { code: &error.code, retryable: error.retryable, retry_at }
    }
}

impl<'a> EntryJson<'a> {
    pub(super) fn of(entry: &'a proto::Entry) -> Self {
        let streaming = entry.state() == EntryState::Streaming;
        Self {
            seq: entry.seq,
            rev: entry.rev,
            id: &entry.id,
            kind: match entry.kind() {
                EntryKind::Event => "event",
                EntryKind::Message | EntryKind::Unspecified => "message",
            },
            state: match entry.state() {
                EntryState::Streaming => "streaming",
                EntryState::Failed => "failed",
                EntryState::Final | EntryState::Unspecified => "final",
            },
            sender: match &entry.sender {
                Some(person) => PersonJson::of(person),
                None => PersonJson { id: None, name: None, role: role(SenderRole::System) },
            },
            content: &entry.content,
            created_at: Time(entry.created_at_ms),
            client_msg_id: text(&entry.client_msg_id),
            answer: entry.answer.as_ref().map(|answer| AnswerJson::of(answer, streaming)),
            event: entry.event.as_ref().map(EventJson::of),
            error: entry.error.as_ref().map(ErrorJson::of),
        }
    }
}

impl<'a> AnswerJson<'a> {
    fn of(answer: &'a proto::Answer, streaming: bool) -> Self {
        Self {
            reply_to_seq: answer.reply_to_seq,
            regenerates: number(answer.regenerates),
            model_id: &answer.model_id,
            attempt: answer.attempt,
            next_index: Some(answer.next_index).filter(|_| streaming),
            finish_reason: text(&answer.finish_reason),
            usage: answer.usage.as_ref().map(|usage| UsageJson {
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                estimated: usage.estimated,
            }),
            latency_ms: answer
                .latency
                .as_ref()
                .map(|latency| LatencyJson { first_token: latency.first_token_ms, total: latency.total_ms }),
        }
    }
}

impl<'a> EventJson<'a> {
    fn of(event: &'a proto::Event) -> Self {
        Self {
            event: &event.r#type,
            admin: event.admin.as_ref().map(Admin::of),
            model_id: text(&event.model_id),
            reason: text(&event.reason),
        }
    }
}
