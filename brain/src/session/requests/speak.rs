//! Requests that append to the log: who says what, who may, and what follows from it.

use std::sync::Arc;

use aws_lc_rs::digest;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{ClientMessageId, MessageId};
use chatbox_shared::proto::{self, server_message::Message};

use super::{Chat, Reply, must_be_admin};
use crate::connection::Connection;
use crate::grpc::convert;
use crate::session::Session;
use crate::session::append::{Draft, Outcome};
use crate::session::entry::{Body, Content, Entry, Event, FinishReason, Sender};
use crate::session::state::Intent;

/// Characters of the reason for which a user asks for a human.
const MAX_REASON_CHARS: usize = 2000;

impl Chat {
    pub(super) async fn user_message(
        &self,
        connection: &Connection,
        ask: proto::UserMessage,
    ) -> Result<Reply, Failure> {
        if !ask.attachments.is_empty() {
            return Err(Failure::invalid("attachments", "this server takes no attachments"));
        }
        let session = self.own_by_text(connection, &ask.session_id).await?;
        let sender = Sender::User(convert::person_of(&connection.principal()));
        let (entry, duplicate) =
            self.say(&session, Intent::UserMessage, sender, &ask.client_msg_id, ask.content).await?;
        self.sessions.mark_read(&session, entry.meta.seq);
        self.sessions.name_after(&session, entry.content.text());
        if matches!(entry.meta.body, Body::Message { needs_answer: true, .. }) {
            self.turns.kick(&session);
        }
        Ok(Reply::with(ack(&session, &entry, &ask.client_msg_id, duplicate)))
    }

    pub(super) async fn admin_message(
        &self,
        connection: &Connection,
        ask: proto::AdminMessage,
    ) -> Result<Reply, Failure> {
        must_be_admin(connection)?;
        let session = self.existing(convert::session_id(&ask.session_id)?).await?;
        let who = convert::person_of(&connection.principal());
        let id = who.id.clone();
        let (entry, duplicate) =
            self.say(&session, Intent::AdminMessage(&id), Sender::Admin(who), &ask.client_msg_id, ask.content).await?;
        Ok(Reply::with(ack(&session, &entry, &ask.client_msg_id, duplicate)))
    }

    /// Appends a message of a human. The flag says that an earlier try of the same message did it.
    async fn say(
        &self,
        session: &Arc<Session>,
        intent: Intent<'_>,
        sender: Sender,
        client_msg_id: &str,
        content: String,
    ) -> Result<(Entry, bool), Failure> {
        let client_msg_id: ClientMessageId = convert::id(client_msg_id, "client_msg_id")?;
        let max = self.current.get().limits.max_content_chars;
        match content.chars().count() {
            0 => return Err(Failure::invalid("content", "content must not be empty")),
            chars if chars > max => {
                return Err(Failure::too_large("content", format!("content has at most {max} characters")));
            }
            _ => {}
        }
        let draft = Draft::new(sender, Body::Message { client_msg_id, needs_answer: false }, content);
        match self.sessions.append(session, intent, &draft).await? {
            Outcome::Appended(entry) => Ok((entry, false)),
            Outcome::Duplicate(entry) if entry.content == Content::Text(draft.content) => Ok((entry, true)),
            Outcome::Duplicate(_) => {
                let message = "This client_msg_id was used for another message.";
                Err(Failure {
                    field: Some("client_msg_id".into()),
                    ..Failure::with_message(ErrorCode::Conflict, message)
                })
            }
            Outcome::AlreadySo | Outcome::AnswerTaken(_) => Err(ErrorCode::Internal.into()),
        }
    }

    pub(super) async fn session_end(&self, connection: &Connection, ask: proto::SessionEnd) -> Result<Reply, Failure> {
        let session = self.own_by_text(connection, &ask.session_id).await?;
        self.event(&session, Intent::End, Event::SessionEnded, String::new()).await?;
        self.turns.end(&session, FinishReason::Stopped).await?;
        self.sessions.save_summary(&session).await;
        Ok(Reply::Done)
    }

    pub(super) async fn model_select(
        &self,
        connection: &Connection,
        ask: proto::ModelSelect,
    ) -> Result<Reply, Failure> {
        let session = self.own_by_text(connection, &ask.session_id).await?;
        let model_id = self.current.get().catalog.get(&ask.model_id).ok_or(ErrorCode::ModelUnavailable)?.id.clone();
        let event = Event::ModelChanged(model_id.clone());
        self.event(&session, Intent::SelectModel(&model_id), event, String::new()).await?;
        Ok(Reply::Done)
    }

    pub(super) async fn help_request(
        &self,
        connection: &Connection,
        ask: proto::HelpRequest,
    ) -> Result<Reply, Failure> {
        if ask.reason.chars().count() > MAX_REASON_CHARS {
            return Err(Failure::too_large("reason", format!("a reason has at most {MAX_REASON_CHARS} characters")));
        }
        let session = self.own_by_text(connection, &ask.session_id).await?;
        let event = Event::HelpRequested { has_reason: !ask.reason.is_empty() };
        self.event(&session, Intent::Help, event, ask.reason).await?;
        Ok(Reply::Done)
    }

    pub(super) async fn stop_generation(
        &self,
        connection: &Connection,
        ask: proto::StopGeneration,
    ) -> Result<Reply, Failure> {
        let session = self.readable(connection, &ask.session_id).await?;
        self.may_steer(connection, &session)?;
        self.turns.stop(&session).await?;
        Ok(Reply::Done)
    }

    pub(super) async fn regenerate(
        &self,
        connection: &Connection,
        request_no: u32,
        ask: proto::Regenerate,
    ) -> Result<Reply, Failure> {
        let session = self.own_by_text(connection, &ask.session_id).await?;
        let model_id = if ask.model_id.is_empty() {
            session.read(|live| live.state.model_id.clone())
        } else {
            self.model_or_default(&ask.model_id)?
        };
        self.turns.regenerate(&session, model_id, request_id(connection, request_no)).await?;
        Ok(Reply::Done)
    }

    pub(super) async fn admin_join(
        &self,
        connection: &Connection,
        request_no: u32,
        ask: proto::AdminJoin,
    ) -> Result<Reply, Failure> {
        must_be_admin(connection)?;
        let session = self.existing(convert::session_id(&ask.session_id)?).await?;
        let who = convert::person_of(&connection.principal());
        let id = who.id.clone();
        self.event(&session, Intent::Join(&id), Event::AdminJoined(who), String::new()).await?;
        // The log forbids new answers from here on; one that was under way is ended before the reply.
        self.turns.end(&session, FinishReason::Interrupted).await?;
        self.opening(session, self.watching(request_no, 0)).await
    }

    pub(super) async fn admin_leave(&self, connection: &Connection, ask: proto::AdminLeave) -> Result<Reply, Failure> {
        must_be_admin(connection)?;
        let session = self.existing(convert::session_id(&ask.session_id)?).await?;
        let who = convert::person_of(&connection.principal());
        let id = who.id.clone();
        self.event(&session, Intent::Leave(&id), Event::AdminLeft(who), String::new()).await?;
        Ok(Reply::Done)
    }

    /// Appends an event and tells everybody what has changed about the session.
    async fn event(
        &self,
        session: &Arc<Session>,
        intent: Intent<'_>,
        event: Event,
        content: String,
    ) -> Result<(), Failure> {
        let draft = Draft::new(Sender::System, Body::Event(event), content);
        if let Outcome::Appended(_) = self.sessions.append(session, intent, &draft).await? {
            session.read(|live| live.broadcast_summary(session));
        }
        Ok(())
    }

    /// The owner may stop an answer, and so may the human who assists.
    fn may_steer(&self, connection: &Connection, session: &Session) -> Result<(), Failure> {
        let user = &connection.principal().user;
        let assists = session.read(|live| live.state.admin.as_ref().is_some_and(|admin| admin.id == *user));
        if session.owner == *user || assists { Ok(()) } else { Err(ErrorCode::Forbidden.into()) }
    }
}

fn ack(session: &Session, entry: &Entry, client_msg_id: &str, duplicate: bool) -> Message {
    Message::Ack(proto::Ack {
        session_id: session.id.to_string(),
        client_msg_id: client_msg_id.to_owned(),
        message_id: entry.meta.id.to_string(),
        seq: entry.meta.seq,
        created_at_ms: entry.meta.created_at.0,
        duplicate,
    })
}

/// An id that is the same when a request is sent again, so that it is not done twice.
fn request_id(connection: &Connection, request_no: u32) -> MessageId {
    let digest = digest::digest(&digest::SHA256, format!("{} {request_no}", connection.id).as_bytes());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest.as_ref()).for_each(|(byte, digest)| *byte = *digest);
    MessageId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}
