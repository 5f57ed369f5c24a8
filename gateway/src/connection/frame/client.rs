//! Client frames: the table of request types with their fields. Everything a client may say is in this file.

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{ClientMessageId, MessageId, SessionId};
use chatbox_shared::proto::{self, client_message::Message};

use super::fields::Fields;
use super::{MAX_ID_CHARS, MAX_PAGE};

/// Longest name of a session that is passed on; the brain has the last word.
const MAX_NAME_CHARS: usize = 1_000;
/// Longest name of a model.
const MAX_MODEL_CHARS: usize = 200;
/// Longest epoch or cursor. Both are opaque and made by the brain.
const MAX_OPAQUE_CHARS: usize = 1_000;
/// Longest reason of a call for help.
const MAX_REASON_CHARS: usize = 2_000;
/// Most files of one message.
const MAX_ATTACHMENTS: usize = 20;
/// A token of the largest size the verifier looks at.
const MAX_TOKEN_CHARS: usize = 8_192;
/// Longest `type` there could be.
const MAX_TYPE_CHARS: usize = 64;

/// One valid frame of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// What the reply will carry as `reply_to`.
    pub id: Option<Box<str>>,
    /// What is asked.
    pub request: Request,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Answered here.
    Ping,
    /// Checked here: the new token.
    TokenRefresh(String),
    /// For the brain.
    Brain(Message),
}

/// A frame that is not in the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The frame's `id`, where that at least was valid.
    pub id: Option<Box<str>>,
    /// What to tell the client.
    pub failure: Failure,
}

/// Reads one frame. `max_content` is the most characters a message may have.
///
/// # Errors
/// Where the text is no valid frame; the failure names the field.
pub fn parse(text: &str, max_content: u32) -> Result<Frame, Refused> {
    let mut fields = Fields::read(text).map_err(|failure| Refused { id: None, failure })?;
    let id = match fields.optional_text("id", MAX_ID_CHARS) {
        Ok(id) => id.map(String::into_boxed_str),
        Err(failure) => return Err(Refused { id: None, failure }),
    };
    let request = fields.text("type", MAX_TYPE_CHARS).and_then(|kind| {
        let request = request(&kind, &mut fields, max_content)?;
        fields.finish()?;
        Ok(request)
    });
    match request {
        Ok(request) => Ok(Frame { id, request }),
        Err(failure) => Err(Refused { id, failure }),
    }
}

fn request(kind: &str, fields: &mut Fields<'_>, max_content: u32) -> Result<Request, Failure> {
    Ok(Request::Brain(match kind {
        "ping" => return Ok(Request::Ping),
        "token_refresh" => return Ok(Request::TokenRefresh(fields.text("token", MAX_TOKEN_CHARS)?)),
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
        _ => return Err(Failure::invalid("type", "There is no such type.")),
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

/// The size of a page; 0 leaves it to the brain.
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
#[path = "client_tests.rs"]
mod tests;
