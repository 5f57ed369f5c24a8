//! Requests: protobuf to a command, the command, its result to protobuf. What a command does and who may do it is in `service`.

use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest;
use chatbox_shared::auth::Principal;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::MessageId;
use chatbox_shared::proto::{self, client_message::Message as Request, server_message::Message};

use super::connection::{Connection, QueuedRequest};
use super::follow::{self, log_failure};
use super::{convert, cursor};
use crate::metrics::Metrics;
use crate::service::context::Context;
use crate::service::messages::{NewMessage, Written};
use crate::service::sessions::{OpenSession, OpenedSession};
use crate::service::{answers, help, history, messages, presence, sessions, takeover};
use crate::store::StateFilter;

/// The result of a request.
enum Reply {
    /// A bare acknowledgement.
    Done,
    /// This message.
    With(Box<Message>),
    /// The session, followed by its replay.
    Open(OpenedSession),
}

/// Answers a request, always with exactly one reply.
pub(super) async fn handle(cx: &Context, metrics: &Metrics, connection: &Arc<Connection>, request: QueuedRequest) {
    let QueuedRequest { request_no, deadline, message } = request;
    let Some(request) = message.message else {
        connection.fail(request_no, &Failure::invalid("type", "Unknown message type."));
        return;
    };
    let begun = Instant::now();
    let kind = kind_of(&request);
    let outcome = in_time(deadline, run(cx, connection, request_no, request)).await;
    metrics.request(kind, outcome.is_ok(), begun.elapsed());
    match outcome {
        Ok(Reply::Done) => connection.reply(request_no, None),
        Ok(Reply::With(message)) => connection.reply(request_no, Some(*message)),
        Ok(Reply::Open(opened)) => {
            if let Err(failure) = follow::open(cx, connection, opened, request_no) {
                log_failure(connection, kind, &failure);
                connection.fail(request_no, &failure);
            }
        }
        Err(failure) => {
            log_failure(connection, kind, &failure);
            connection.fail(request_no, &failure);
        }
    }
}

/// Runs a request until its deadline. A request whose deadline has passed in the queue is not begun.
async fn in_time(
    deadline: tokio::time::Instant,
    request: impl Future<Output = Result<Reply, Failure>>,
) -> Result<Reply, Failure> {
    // A request waits for nothing but the store.
    let late = || Err(ErrorCode::StorageUnavailable.into());
    if tokio::time::Instant::now() >= deadline {
        return late();
    }
    tokio::time::timeout_at(deadline, request).await.unwrap_or_else(|_| late())
}

async fn run(cx: &Context, connection: &Connection, request_no: u32, request: Request) -> Result<Reply, Failure> {
    let by = &connection.principal();
    match request {
        Request::SessionOpen(request) => sessions::open(cx, by, open_session(request)?).await.map(Reply::Open),
        Request::SessionClose(request) => {
            if let Some(session) = connection.forget(convert::session_id(&request.session_id)?) {
                session.unsubscribe(connection);
            }
            Ok(Reply::Done)
        }
        Request::SessionList(request) => session_list(cx, by, &request).await,
        Request::SessionRename(request) => {
            done(sessions::rename(cx, by, convert::session_id(&request.session_id)?, &request.name).await)
        }
        Request::SessionEnd(request) => done(sessions::end(cx, by, convert::session_id(&request.session_id)?).await),
        Request::SessionDelete(request) => {
            done(sessions::delete(cx, by, convert::session_id(&request.session_id)?).await)
        }
        Request::History(request) => entries(cx, by, request).await,
        Request::UserMessage(request) => user_message(cx, by, request).await,
        Request::StopGeneration(request) => {
            done(answers::stop(cx, by, convert::session_id(&request.session_id)?).await)
        }
        Request::Regenerate(request) => {
            let (id, answer) = (convert::session_id(&request.session_id)?, answer_id(connection, request_no));
            done(answers::regenerate(cx, by, id, &request.model_id, answer).await)
        }
        Request::ModelSelect(request) => {
            let id = convert::session_id(&request.session_id)?;
            done(answers::select_model(cx, by, id, &request.model_id).await)
        }
        Request::Typing(request) => typing(connection, by, &request),
        Request::Read(request) => {
            let id = convert::session_id(&request.session_id)?;
            done(presence::read(cx, by, id, request.seq, connection).await)
        }
        Request::HelpRequest(request) => {
            done(help::request(cx, by, convert::session_id(&request.session_id)?, request.reason).await)
        }
        Request::AdminWatch(request) => {
            let id = convert::session_id(&request.session_id)?;
            takeover::watch(cx, by, id, request.after_seq).await.map(Reply::Open)
        }
        Request::AdminJoin(request) => {
            takeover::join(cx, by, convert::session_id(&request.session_id)?).await.map(Reply::Open)
        }
        Request::AdminMessage(request) => admin_message(cx, by, request).await,
        Request::AdminLeave(request) => done(takeover::leave(cx, by, convert::session_id(&request.session_id)?).await),
    }
}

fn done(result: Result<(), Failure>) -> Result<Reply, Failure> {
    result.map(|()| Reply::Done)
}

fn open_session(request: proto::SessionOpen) -> Result<OpenSession, Failure> {
    Ok(OpenSession {
        id: convert::session_id(&request.session_id)?,
        create: request.create,
        model_id: request.model_id,
        name: request.name,
        after_seq: request.after_seq,
        epoch: request.epoch,
    })
}

async fn session_list(cx: &Context, by: &Principal, request: &proto::SessionList) -> Result<Reply, Failure> {
    let filter = match request.state() {
        proto::SessionState::Unspecified => StateFilter::Any,
        proto::SessionState::Active => StateFilter::Active,
        proto::SessionState::Ended => StateFilter::Ended,
    };
    let page = sessions::list(cx, by, filter, cursor::read(&request.cursor)?, request.limit).await?;
    let sessions = page.sessions.iter().map(convert::session).collect();
    let next_cursor = cursor::write(page.next);
    Ok(Reply::With(Box::new(Message::Sessions(proto::Sessions { sessions, next_cursor }))))
}

async fn entries(cx: &Context, by: &Principal, request: proto::History) -> Result<Reply, Failure> {
    let id = convert::session_id(&request.session_id)?;
    let entries = history::history(cx, by, id, request.before_seq, request.limit).await?;
    let entries = entries.iter().map(convert::entry).collect();
    let session_id = request.session_id;
    Ok(Reply::With(Box::new(Message::Entries(proto::Entries { session_id, entries }))))
}

async fn user_message(cx: &Context, by: &Principal, request: proto::UserMessage) -> Result<Reply, Failure> {
    if !request.attachments.is_empty() {
        return Err(Failure::invalid("attachments", "This server does not accept attachments."));
    }
    let message = new_message(&request.session_id, &request.client_msg_id, request.content)?;
    Ok(ack(&messages::by_owner(cx, by, message).await?, request.client_msg_id))
}

async fn admin_message(cx: &Context, by: &Principal, request: proto::AdminMessage) -> Result<Reply, Failure> {
    let message = new_message(&request.session_id, &request.client_msg_id, request.content)?;
    Ok(ack(&messages::by_admin(cx, by, message).await?, request.client_msg_id))
}

fn new_message(session: &str, client_msg_id: &str, content: String) -> Result<NewMessage, Failure> {
    let session = convert::session_id(session)?;
    Ok(NewMessage { session, client_msg_id: convert::id(client_msg_id, "client_msg_id")?, content })
}

/// The client's spelling of its id is kept.
fn ack(written: &Written, client_msg_id: String) -> Reply {
    let meta = &written.entry.meta;
    Reply::With(Box::new(Message::Ack(proto::Ack {
        session_id: meta.session.to_string(),
        client_msg_id,
        message_id: meta.id.to_string(),
        seq: meta.seq,
        created_at_ms: meta.created_at.0,
        duplicate: written.duplicate,
    })))
}

fn typing(connection: &Connection, by: &Principal, request: &proto::Typing) -> Result<Reply, Failure> {
    let id = convert::session_id(&request.session_id)?;
    let Some(session) = connection.opened(id) else {
        // A moved connection gets the session back in a moment; typing that is not passed on does not matter.
        return if connection.is_resuming(id) { Ok(Reply::Done) } else { Err(ErrorCode::NotFound.into()) };
    };
    if connection.may_type(id, Instant::now()) {
        presence::typing(by, &session, request.active);
    }
    Ok(Reply::Done)
}

/// The id of a regenerated answer. A request that is sent again gives the same id, so it has no second effect.
fn answer_id(connection: &Connection, request_no: u32) -> MessageId {
    let digest = digest::digest(&digest::SHA256, format!("{} {request_no}", connection.id).as_bytes());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest.as_ref()).for_each(|(byte, digest)| *byte = *digest);
    MessageId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// The request's name in metrics and logs.
fn kind_of(request: &Request) -> &'static str {
    match request {
        Request::SessionOpen(_) => "session_open",
        Request::SessionClose(_) => "session_close",
        Request::SessionList(_) => "session_list",
        Request::SessionRename(_) => "session_rename",
        Request::SessionEnd(_) => "session_end",
        Request::SessionDelete(_) => "session_delete",
        Request::History(_) => "history",
        Request::UserMessage(_) => "user_message",
        Request::StopGeneration(_) => "stop_generation",
        Request::Regenerate(_) => "regenerate",
        Request::ModelSelect(_) => "model_select",
        Request::Typing(_) => "typing",
        Request::Read(_) => "read",
        Request::HelpRequest(_) => "help_request",
        Request::AdminJoin(_) => "admin_join",
        Request::AdminMessage(_) => "admin_message",
        Request::AdminLeave(_) => "admin_leave",
        Request::AdminWatch(_) => "admin_watch",
    }
}
