//! Between the brain's own types and protobuf. Nothing else in the brain knows how the wire spells things.

use chatbox_shared::auth::Principal;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{BadId, SessionId, UserId};
use chatbox_shared::proto;

use crate::session::Session;
use crate::session::entry::{Answer, Body, Content, Entry, EntryState, Event, Person, Sender, TokenUsage};
use crate::session::live::Live;

/// An entry as everybody sees it.
pub fn entry(entry: &Entry) -> proto::Entry {
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

fn event(event: &Event, reason: String) -> proto::Event {
    let mut wire = proto::Event { reason, ..proto::Event::default() };
    wire.r#type = match event {
        Event::AdminJoined(_) => "admin_joined",
        Event::AdminLeft(_) => "admin_left",
        Event::HelpRequested { .. } => "help_requested",
        Event::ModelChanged(_) => "model_changed",
        Event::SessionEnded => "session_ended",
    }
    .to_owned();
    match event {
        Event::AdminJoined(who) | Event::AdminLeft(who) => wire.admin = Some(person(who, proto::SenderRole::Admin)),
        Event::ModelChanged(model_id) => wire.model_id.clone_from(model_id),
        Event::HelpRequested { .. } | Event::SessionEnded => {}
    }
    wire
}

fn sender(sender: &Sender) -> proto::Person {
    let nobody = |role: proto::SenderRole| proto::Person { role: role.into(), ..proto::Person::default() };
    match sender {
        Sender::User(who) => person(who, proto::SenderRole::User),
        Sender::Admin(who) => person(who, proto::SenderRole::Admin),
        Sender::Ai => nobody(proto::SenderRole::Ai),
        Sender::System => nobody(proto::SenderRole::System),
    }
}

/// A human in a role.
pub fn person(person: &Person, role: proto::SenderRole) -> proto::Person {
    proto::Person { id: person.id.to_string(), name: person.name.clone().unwrap_or_default(), role: role.into() }
}

/// A session as its participants see it.
pub fn session(session: &Session, live: &Live) -> proto::Session {
    let state = &live.state;
    let wire_state = if state.ended_at.is_some() { proto::SessionState::Ended } else { proto::SessionState::Active };
    proto::Session {
        id: session.id.to_string(),
        epoch: session.epoch.clone(),
        name: live.name.clone(),
        state: wire_state.into(),
        model_id: state.model_id.clone(),
        seq: state.seq,
        created_at_ms: session.started_at.0,
        last_activity_at_ms: state.last_at.0,
        ended_at_ms: state.ended_at.map_or(0, |at| at.0),
        message_count: state.message_count,
        unread: state.seq.saturating_sub(live.read_seq),
        admin_assisted: state.admin_assisted,
        assisting_admin: state.admin.as_ref().map(|admin| person(admin, proto::SenderRole::Admin)),
        help_requested: state.help_requested_at.is_some(),
        input_tokens: live.usage.input,
        output_tokens: live.usage.output,
    }
}

/// The person a token names.
pub fn person_of(principal: &Principal) -> Person {
    Person { id: principal.user.clone(), name: principal.name.clone() }
}

/// Who a gateway says is on the other side.
///
/// # Errors
/// Where there is no user.
pub fn principal(wire: Option<proto::Principal>) -> Result<Principal, Failure> {
    let wire = wire.filter(|wire| !wire.user_id.is_empty());
    let wire = wire.ok_or_else(|| Failure::invalid("principal", "a connection needs a user"))?;
    let name = Some(wire.name).filter(|name| !name.is_empty());
    Ok(Principal { user: UserId::new(wire.user_id), name, roles: wire.roles })
}

/// A session id from the wire.
///
/// # Errors
/// Where it is no UUID.
pub fn session_id(text: &str) -> Result<SessionId, Failure> {
    id(text, "session_id")
}

/// Any id from the wire.
///
/// # Errors
/// Where it is no UUID.
pub fn id<T: std::str::FromStr<Err = BadId>>(text: &str, field: &str) -> Result<T, Failure> {
    text.parse().map_err(|BadId| Failure::invalid(field, format!("{field} must be a UUID")))
}
