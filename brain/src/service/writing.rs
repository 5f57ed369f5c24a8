//! Appending what participants write and do.

use std::sync::Arc;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::ClientMessageId;

use super::context::Context;
use crate::log::entry::{Body, Content, Entry, LogEvent, Sender};
use crate::log::state::Intent;
use crate::session::append::{AppendOutcome, Draft, append};
use crate::session::handle::Session;

/// A message that is in the log.
#[derive(Debug)]
pub struct Written {
    /// The message.
    pub entry: Entry,
    /// An earlier request with the same client id had written it already.
    pub duplicate: bool,
}

/// Appends a message of a human.
///
/// # Errors
/// `invalid_message` or `too_large` for the content, `conflict` if the client id was used for another message, or why the
/// sender may not write now.
pub(super) async fn append_message(
    cx: &Context,
    session: &Arc<Session>,
    intent: Intent<'_>,
    sender: Sender,
    client_msg_id: ClientMessageId,
    content: String,
) -> Result<Written, Failure> {
    check_content(cx, &content)?;
    let draft = Draft::new(sender, Body::Message { client_msg_id, needs_answer: false }, content);
    match append(&cx.sessions, session, intent, &draft).await? {
        AppendOutcome::Appended(entry) => Ok(Written { entry, duplicate: false }),
        AppendOutcome::Duplicate(entry) if entry.content == Content::Text(draft.content) => {
            Ok(Written { entry, duplicate: true })
        }
        AppendOutcome::Duplicate(_) => {
            let message = "This client_msg_id was used for another message.";
            Err(Failure { field: Some("client_msg_id".into()), ..Failure::with_message(ErrorCode::Conflict, message) })
        }
        AppendOutcome::NothingToDo | AppendOutcome::AnswerTaken(_) => Err(ErrorCode::Internal.into()),
    }
}

fn check_content(cx: &Context, content: &str) -> Result<(), Failure> {
    let max = cx.tunables().limits.max_content_chars;
    match content.chars().count() {
        0 => Err(Failure::invalid("content", "This field must not be empty.")),
        chars if chars > max => {
            Err(Failure::too_large("content", format!("The content may have at most {max} characters.")))
        }
        _ => Ok(()),
    }
}

/// Appends an event and tells all subscribers the new state of the session.
///
/// # Errors
/// Why the event is refused, or that the store cannot be reached.
pub(super) async fn append_event(
    cx: &Context,
    session: &Arc<Session>,
    intent: Intent<'_>,
    event: LogEvent,
    content: String,
) -> Result<(), Failure> {
    let draft = Draft::new(Sender::System, Body::Event(event), content);
    if let AppendOutcome::Appended(_) = append(&cx.sessions, session, intent, &draft).await? {
        session.publish_view();
    }
    Ok(())
}
