//! Messages of the owner and of the human who assists.

use std::sync::Arc;

use chatbox_shared::auth::Principal;
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::{ClientMessageId, SessionId};

use super::access;
use super::context::Context;
use super::writing::append_message;
use crate::log::entry::{Body, Sender};
use crate::log::state::Intent;
use crate::session::handle::Session;
use crate::session::{name, summary};
use crate::turn::worker;

pub use super::writing::Written;

/// A session with more messages than this gets no name: its owner may have removed the name.
const NAMED_WITHIN: u64 = 3;

/// A message to write.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The session.
    pub session: SessionId,
    /// The client's id of the message. A repeated request with the same id writes nothing more.
    pub client_msg_id: ClientMessageId,
    /// The text.
    pub content: String,
}

/// Writes a message of the owner, and has it answered.
///
/// # Errors
/// `not_found` if there is no such session of the principal, or why the message is refused.
pub async fn by_owner(cx: &Context, by: &Principal, message: NewMessage) -> Result<Written, Failure> {
    let session = access::own(cx, by, message.session).await?;
    let sender = Sender::User(access::person(by));
    let NewMessage { client_msg_id, content, .. } = message;
    let written = append_message(cx, &session, Intent::UserMessage, sender, client_msg_id, content).await?;
    let (store, lifecycle) = (&cx.sessions.store, &cx.sessions.lifecycle);
    summary::wrote(store, lifecycle, &session, written.entry.meta.seq);
    name_after(cx, &session, written.entry.content.text());
    if matches!(written.entry.meta.body, Body::Message { needs_answer: true, .. }) {
        worker::kick(&cx.turns, &session);
    }
    Ok(written)
}

/// Writes a message of the human who assists.
///
/// # Errors
/// `forbidden` if the principal is no admin, `not_assisting` if they do not assist in this session.
pub async fn by_admin(cx: &Context, by: &Principal, message: NewMessage) -> Result<Written, Failure> {
    let session = access::as_admin(cx, by, message.session).await?;
    let sender = Sender::Admin(access::person(by));
    let NewMessage { client_msg_id, content, .. } = message;
    append_message(cx, &session, Intent::AdminMessage(&by.user), sender, client_msg_id, content).await
}

/// Names a new session after its first message. The reply to the message does not wait for this.
fn name_after(cx: &Context, session: &Arc<Session>, message: &str) {
    let new_name = name::from_message(message);
    let named = |live: &crate::session::live::Live| !live.name.is_empty() || live.state.message_count > NAMED_WITHIN;
    if new_name.is_empty() || session.read(named) {
        return;
    }
    let (store, session) = (Arc::clone(&cx.sessions.store), Arc::clone(session));
    cx.sessions.lifecycle.spawn(async move {
        if let Err(failure) = name::rename_from(store.as_ref(), &session, "", &new_name).await {
            tracing::debug!(session = %session.id, %failure, "the session stays without a name");
        }
    });
}
