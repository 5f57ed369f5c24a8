//! Conversions between domain types and protobuf: entries, sessions, principals, ids.

use chatbox_shared::auth::Principal;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{BadId, SessionId, UserId};
use chatbox_shared::proto;

use crate::log::entry::{Answer, Body, Content, Entry, EntryState, LogEvent, Person, Sender, TokenUsage};
use crate::session::view::SessionView;

/// An entry as participants see it. Unreadable content shows as a failed entry.
pub(super) fn entry(entry: &Entry) -> proto::Entry {
    let meta = &entry.meta;
    let unreadable = entry.content == Content::Unreadable;
    let state = match meta.state {
        _ if unreadable => proto::EntryState::Failed,
        EntryState::Final => proto::EntryState::Final,
        EntryState::Streaming => proto::EntryState::Streaming,
        EntryState::Failed => proto::EntryState::Failed,
    };
    let error = if unreadable { Some(ErrorCode::Internal) } else { meta.answer().and_then(|answer| answer.error) };
    let mut wire = proto::Entry {
        seq: meta.seq,
        rev: meta.rev,
        id: meta.id.to_string(),
        state: state.into(),
        sender: Some(sender(&meta.sender)),
        content: entry.content.text().to_owned(),
        created_at_ms: meta.created_at.0,
        error: error.map(|code| proto::EntryError {
            code: code.as_str().into(),
            retryable: code.retryable(),
            retry_at_ms: meta.answer().and_then(|answer| answer.retry_at).map_or(0, |at| at.0),
        }),
        ..proto::Entry::default()
    };
    match &meta.body {
        Body::Message { client_msg_id, .. } => {
            wire.set_kind(proto::EntryKind::Message);
            wire.client_msg_id = client_msg_id.to_string();
        }
        Body::Answer(part) => {
            wire.set_kind(proto::EntryKind::Message);
            wire.answer = Some(answer(part));
        }
        Body::Event(happened) => {
            wire.set_kind(proto::EntryKind::Event);
            wire.event = Some(event(happened, std::mem::take(&mut wire.content)));
        }
    }
    wire
}

fn answer(answer: &Answer) -> proto::Answer {
    proto::Answer {
        reply_to_seq: answer.reply_to,
        regenerates: answer.regenerates.unwrap_or(0),
        model_id: answer.model_id.clone(),
        attempt: answer.attempt,
        next_index: answer.next_index,
        finish_reason: answer.finish.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        usage: answer.usage.map(usage),
        latency: answer
            .total_ms
            .map(|total_ms| proto::Latency { first_token_ms: answer.first_token_ms.unwrap_or(total_ms), total_ms }),
    }
}

fn usage(usage: TokenUsage) -> proto::Usage {
    proto::Usage { input_tokens: usage.input, output_tokens: usage.output, estimated: usage.estimated }
}

fn event(event: &LogEvent, reason: String) -> proto::Event {
    let mut wire = proto::Event { reason, ..proto::Event::default() };
    wire.r#type = match event {
        LogEvent::AdminJoined(_) => "admin_joined",
        LogEvent::AdminLeft(_) => "admin_left",
        LogEvent::HelpRequested { .. } => "help_requested",
        LogEvent::ModelChanged(_) => "model_changed",
        LogEvent::SessionEnded => "session_ended",
        LogEvent::Unknown => "unknown",
    }
    .to_owned();
    match event {
        LogEvent::AdminJoined(who) | LogEvent::AdminLeft(who) => {
            wire.admin = Some(person(who, proto::SenderRole::Admin))
        }
        LogEvent::ModelChanged(model_id) => wire.model_id.clone_from(model_id),
        LogEvent::HelpRequested { .. } | LogEvent::SessionEnded | LogEvent::Unknown => {}
    }
    wire
}

/// Who wrote an entry, or who does something in a session.
pub(super) fn sender(sender: &Sender) -> proto::Person {
    let without_id = |role: proto::SenderRole| proto::Person { role: role.into(), ..proto::Person::default() };
    match sender {
        Sender::User(who) => person(who, proto::SenderRole::User),
        Sender::Admin(who) => person(who, proto::SenderRole::Admin),
        Sender::Ai => without_id(proto::SenderRole::Ai),
        Sender::System => without_id(proto::SenderRole::System),
    }
}

fn person(person: &Person, role: proto::SenderRole) -> proto::Person {
    proto::Person { id: person.id.to_string(), name: person.name.clone().unwrap_or_default(), role: role.into() }
}

/// A session as participants see it.
pub(super) fn session(view: &SessionView) -> proto::Session {
    let summary = &view.summary;
    let state = if summary.ended_at.is_some() { proto::SessionState::Ended } else { proto::SessionState::Active };
    proto::Session {
        id: view.id.to_string(),
        epoch: view.epoch.clone(),
        name: view.name.clone(),
        state: state.into(),
        model_id: summary.model_id.clone(),
        seq: summary.seq,
        created_at_ms: view.started_at.0,
        last_activity_at_ms: summary.last_at.0,
        ended_at_ms: summary.ended_at.map_or(0, |at| at.0),
        message_count: summary.message_count,
        unread: summary.seq.saturating_sub(view.read_seq),
        admin_assisted: summary.admin_assisted,
        assisting_admin: summary.admin.as_ref().map(|admin| person(admin, proto::SenderRole::Admin)),
        help_requested: summary.help_requested_at.is_some(),
        input_tokens: view.usage.input,
        output_tokens: view.usage.output,
    }
}

/// The principal of a connection, as its gateway reports it.
///
/// # Errors
/// If it names no user.
pub(super) fn principal(wire: Option<proto::Principal>) -> Result<Principal, Failure> {
    let wire = wire.filter(|wire| !wire.user_id.is_empty());
    let wire = wire.ok_or_else(|| Failure::invalid("principal", "The connection must have a user."))?;
    let name = Some(wire.name).filter(|name| !name.is_empty());
    Ok(Principal { user: UserId::new(wire.user_id), name, roles: wire.roles })
}

/// The id in the field `session_id`.
///
/// # Errors
/// `invalid_message` if it is no UUID.
pub(super) fn session_id(text: &str) -> Result<SessionId, Failure> {
    id(text, "session_id")
}

/// The id in this field.
///
/// # Errors
/// `invalid_message` if it is no UUID.
pub(super) fn id<T: std::str::FromStr<Err = BadId>>(text: &str, field: &str) -> Result<T, Failure> {
    text.parse().map_err(|BadId| Failure::invalid(field, "This field must be a UUID."))
}
