//! Client frames: every request type with its fields. This file is the whole list of what a client may send; reading
//! the JSON itself is the task of `fields`.

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{ClientMessageId, MessageId, SessionId};
use chatbox_shared::proto::{self, client_message::Message};

use super::fields::Fields;

/// Longest `id` of a request, in characters.
pub const MAX_ID_CHARS: usize = 64;
/// Largest page of a list, in elements.
pub const MAX_PAGE: u64 = 100;
/// Longest session name the gateway forwards: the largest value of the brain's setting `limits.max_name_chars`.
const MAX_NAME_CHARS: usize = 1_000;
/// Longest model id.
const MAX_MODEL_CHARS: usize = 200;
/// Longest epoch or cursor. The brain makes both; the gateway does not interpret them.
const MAX_OPAQUE_CHARS: usize = 1_000;
/// Longest `reason` the gateway forwards: the largest value of the brain's setting `limits.max_reason_chars`.
const MAX_REASON_CHARS: usize = 10_000;
/// Largest number of attachments of one message.
const MAX_ATTACHMENTS: usize = 20;
/// Longest token: the largest size the verifier accepts.
const MAX_TOKEN_CHARS: usize = 8_192;
/// Longest `type` or `state` that is compared with the known values.
const MAX_TYPE_CHARS: usize = 64;

/// One valid client frame.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientFrame {
    /// The value of `reply_to` in the reply.
    pub id: Option<Box<str>>,
    /// The request.
    pub request: ClientRequest,
}

/// A request, by who answers it.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientRequest {
    /// Answered by the gateway.
    Ping,
    /// Checked by the gateway. Holds the new token.
    TokenRefresh(String),
    /// Forwarded to the brain.
    Brain(Message),
}

/// A frame outside the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidFrame {
    /// The frame's `id`, if the `id` is valid.
    pub id: Option<Box<str>>,
    /// The error for the client.
    pub failure: Failure,
}

/// Parses one frame. `max_content` is the largest number of characters in a message.
///
/// # Errors
/// If the text is not a valid frame. The failure names the field.
pub fn parse(text: &str, max_content: u32) -> Result<ClientFrame, InvalidFrame> {
    let mut fields = Fields::read(text).map_err(|failure| InvalidFrame { id: None, failure })?;
    let id = match fields.optional_text("id", MAX_ID_CHARS) {
        Ok(id) => id.map(String::into_boxed_str),
        Err(failure) => return Err(InvalidFrame { id: None, failure }),
    };
    let request = fields.text("type", MAX_TYPE_CHARS).and_then(|kind| {
        let request = request(&kind, &mut fields, max_content)?;
        fields.finish()?;
        Ok(request)
    });
    match request {
        Ok(request) => Ok(ClientFrame { id, request }),
        Err(failure) => Err(InvalidFrame { id, failure }),
    }
}

/// The `id` of a frame that is rejected unread. `None` if the frame has no valid `id`.
pub fn request_id(text: &str) -> Option<Box<str>> {
    let id = Fields::read(text).ok()?.optional_text("id", MAX_ID_CHARS).ok()?;
    id.map(String::into_boxed_str)
}

fn request(kind: &str, fields: &mut Fields<'_>, max_content: u32) -> Result<ClientRequest, Failure> {
    Ok(ClientRequest::Brain(match kind {
        "ping" => return Ok(ClientRequest::Ping),
        "token_refresh" => return Ok(ClientRequest::TokenRefresh(fields.text("token", MAX_TOKEN_CHARS)?)),
        "session_open" => Message::SessionOpen(proto::SessionOpen {
            session_id: session(fields)?,
            create: fields.optional_flag("create")?.unwrap_or_default(),
            after_seq: fields.optional_whole("after_seq")?.unwrap_or_default(),
            epoch: fields.optional_text("epoch", MAX_OPAQUE_CHARS)?.unwrap_or_default(),
            model_id: fields.optional_text("model_id", MAX_MODEL_CHARS)?.unwrap_or_default(),
            name: fields.optional_text("name", MAX_NAME_CHARS)?.unwrap_or_default(),
        }),
        "session_close" => Message::SessionClose(proto::SessionClose { session_id: session(fields)? }),
        "session_list" => Message::SessionList(proto::SessionList {
            cursor: fields.optional_text("cursor", MAX_OPAQUE_CHARS)?.unwrap_or_default(),
            limit: page(fields)?,
            state: state(fields)?.into(),
        }),
        "session_rename" => Message::SessionRename(proto::SessionRename {
            session_id: session(fields)?,
            name: fields.text("name", MAX_NAME_CHARS)?,
        }),
        "session_end" => Message::SessionEnd(proto::SessionEnd { session_id: session(fields)? }),
        "session_delete" => Message::SessionDelete(proto::SessionDelete { session_id: session(fields)? }),
        "history" => Message::History(proto::History {
            session_id: session(fields)?,
            before_seq: fields.whole("before_seq")?,
            limit: page(fields)?,
        }),
        "user_message" => Message::UserMessage(proto::UserMessage {
            session_id: session(fields)?,
            client_msg_id: fields.id::<ClientMessageId>("client_msg_id")?,
            content: content(fields, max_content)?,
            attachments: fields.ids::<MessageId>("attachments", MAX_ATTACHMENTS)?,
        }),
        "stop_generation" => Message::StopGeneration(proto::StopGeneration { session_id: session(fields)? }),
        "regenerate" => Message::Regenerate(proto::Regenerate {
            session_id: session(fields)?,
            model_id: fields.optional_text("model_id", MAX_MODEL_CHARS)?.unwrap_or_default(),
        }),
        "model_select" => Message::ModelSelect(proto::ModelSelect {
            session_id: session(fields)?,
            model_id: fields.text("model_id", MAX_MODEL_CHARS)?,
        }),
        "typing" => Message::Typing(proto::Typing { session_id: session(fields)?, active: fields.flag("active")? }),
        "read" => Message::Read(proto::Read { session_id: session(fields)?, seq: fields.whole("seq")? }),
        "help_request" => Message::HelpRequest(proto::HelpRequest {
            session_id: session(fields)?,
            reason: fields.optional_text("reason", MAX_REASON_CHARS)?.unwrap_or_default(),
        }),
        "admin_join" => Message::AdminJoin(proto::AdminJoin { session_id: session(fields)? }),
        "admin_message" => Message::AdminMessage(proto::AdminMessage {
            session_id: session(fields)?,
            client_msg_id: fields.id::<ClientMessageId>("client_msg_id")?,
            content: content(fields, max_content)?,
        }),
        "admin_leave" => Message::AdminLeave(proto::AdminLeave { session_id: session(fields)? }),
        "admin_watch" => Message::AdminWatch(proto::AdminWatch {
            session_id: session(fields)?,
            after_seq: fields.optional_whole("after_seq")?.unwrap_or_default(),
        }),
        _ => return Err(Failure::invalid("type", "Unknown message type.")),
    }))
}

fn session(fields: &mut Fields<'_>) -> Result<String, Failure> {
    fields.id::<SessionId>("session_id")
}

fn content(fields: &mut Fields<'_>, max: u32) -> Result<String, Failure> {
    let content = fields.text("content", usize::MAX)?;
    let limit = usize::try_from(max).unwrap_or(usize::MAX);
    if content.len() > limit && content.chars().count() > limit {
        let mut failure =
            Failure::with_message(ErrorCode::TooLarge, format!("The content may have at most {limit} characters."));
        failure.field = Some("content".to_owned());
        return Err(failure);
    }
    Ok(content)
}

/// The page size; 0 lets the brain choose its default.
fn page(fields: &mut Fields<'_>) -> Result<u32, Failure> {
    match fields.optional_whole("limit")? {
        None => Ok(0),
        Some(limit @ 1..=MAX_PAGE) => Ok(u32::try_from(limit).unwrap_or_default()),
        Some(_) => Err(Failure::invalid("limit", format!("This field must be from 1 to {MAX_PAGE}."))),
    }
}

fn state(fields: &mut Fields<'_>) -> Result<proto::SessionState, Failure> {
    match fields.optional_text("state", MAX_TYPE_CHARS)?.as_deref() {
        None => Ok(proto::SessionState::Unspecified),
        Some("active") => Ok(proto::SessionState::Active),
        Some("ended") => Ok(proto::SessionState::Ended),
        Some(_) => Err(Failure::invalid("state", "This field must be active or ended.")),
    }
}

#[cfg(test)]
mod tests;
