//! Entries of a session's log as clients see them.

use chatbox_shared::proto::{self, EntryKind, EntryState};
use serde::Serialize;

use super::scalars::{AdminJson, PersonJson, Time, number, text};

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
    admin: Option<AdminJson<'a>>,
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
    /// The entry as JSON.
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
            sender: entry.sender.as_ref().map_or(PersonJson::SYSTEM, PersonJson::of),
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
            admin: event.admin.as_ref().map(AdminJson::of),
            model_id: text(&event.model_id),
            reason: text(&event.reason),
        }
    }
}
