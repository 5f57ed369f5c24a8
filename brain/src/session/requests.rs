//! What a client may ask: the entry point of every request. Each arm finds the session, checks the right to it, and hands
//! on; what is said and who may speak is in [`speak`], the rest here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::SessionId;
use chatbox_shared::proto::{self, client_message::Message as Ask, server_message::Message};
use tokio::sync::watch;

use crate::connection::{Connection, QueuedRequest};
use crate::grpc::convert;
use crate::metrics::Metrics;
use crate::session::Session;
use crate::session::open::OpenAt;
use crate::session::registry::Sessions;
use crate::session::summary::session_deleted;
use crate::store::{SessionCursor, StateFilter};
use crate::tunables::{Current, Tunables};
use crate::turn::Turns;

mod speak;

/// The longest a request may take before its client is told to try again. A replay is not counted.
const PATIENCE: Duration = Duration::from_millis(4800);
/// The longest a moved connection's session may stay unreadable before the client is asked to connect again.
const RESUME_PATIENCE: Duration = Duration::from_secs(30);
/// WebSocket close code: connect again.
const CLOSE_RESTART: u32 = 1012;
/// Text of a page of entries, so that no page fills the queue of a socket.
const PAGE_BYTES: usize = 192 << 10;
/// Rows of a page where the client names no limit, and at most.
const DEFAULT_PAGE: u32 = 50;
const MAX_PAGE: u32 = 100;

/// Sizes a client must keep to.
#[derive(Debug, Clone, Copy)]
pub struct ChatLimits {
    /// Characters of one message.
    pub max_content_chars: usize,
    /// Characters of a session's name.
    pub max_name_chars: usize,
    /// Entries an open replays.
    pub replay_entries: u64,
}

/// Answers the requests of clients.
pub struct Chat {
    sessions: Arc<Sessions>,
    turns: Arc<Turns>,
    current: Arc<Current>,
    metrics: Arc<Metrics>,
}

/// How a request ended.
enum Reply {
    /// With a bare acknowledgement.
    Done,
    /// With this message.
    With(Box<Message>),
    /// With the session, followed by its replay.
    Open(Arc<Session>, OpenAt),
}

impl Reply {
    fn with(message: Message) -> Self {
        Self::With(Box::new(message))
    }
}

impl Chat {
    /// The parts it works with.
    pub fn new(sessions: Arc<Sessions>, turns: Arc<Turns>, current: Arc<Current>, metrics: Arc<Metrics>) -> Self {
        Self { sessions, turns, current, metrics }
    }

    /// The models clients may choose from, and the sizes they must keep to.
    pub fn tunables(&self) -> Arc<Tunables> {
        self.current.get()
    }

    /// Tells when others are in force.
    pub fn changes(&self) -> watch::Receiver<Arc<Tunables>> {
        self.current.changes()
    }

    /// Does what the request asks and answers it, always, once.
    pub async fn handle(&self, connection: &Arc<Connection>, request: QueuedRequest) {
        let Some(ask) = request.message.message else {
            connection.fail(request.request_no, &Failure::invalid("type", "unknown type"));
            return;
        };
        let request_no = request.request_no;
        let begun = Instant::now();
        let kind = kind_of(&ask);
        let outcome = match tokio::time::timeout(PATIENCE, self.dispatch(connection, request_no, ask)).await {
            Ok(outcome) => outcome,
            // Every wait in a request is for the store.
            Err(_) => Err(ErrorCode::StorageUnavailable.into()),
        };
        self.metrics.request(kind, outcome.is_ok(), begun.elapsed());
        match outcome {
            Ok(Reply::Done) => connection.reply(request_no, None),
            Ok(Reply::With(message)) => connection.reply(request_no, Some(*message)),
            Ok(Reply::Open(session, at)) => {
                if let Err(failure) = self.sessions.open(&session, connection, at).await {
                    // The request has its reply; what follows it failed, so the client is told to open again.
                    log_refusal(connection, kind, &failure);
                    connection.deliver(Message::Error((&failure).into()));
                }
            }
            Err(failure) => {
                log_refusal(connection, kind, &failure);
                connection.fail(request_no, &failure);
            }
        }
    }

    async fn dispatch(&self, connection: &Connection, request_no: u32, ask: Ask) -> Result<Reply, Failure> {
        match ask {
            Ask::SessionOpen(ask) => self.session_open(connection, request_no, ask).await,
            Ask::AdminWatch(ask) => self.admin_watch(connection, request_no, ask).await,
            Ask::AdminJoin(ask) => self.admin_join(connection, request_no, ask).await,
            Ask::SessionClose(ask) => close(connection, &ask),
            Ask::SessionList(ask) => self.session_list(connection, ask).await,
            Ask::SessionRename(ask) => self.session_rename(connection, ask).await,
            Ask::SessionEnd(ask) => self.session_end(connection, ask).await,
            Ask::SessionDelete(ask) => self.session_delete(connection, ask).await,
            Ask::History(ask) => self.history(connection, ask).await,
            Ask::UserMessage(ask) => self.user_message(connection, ask).await,
            Ask::StopGeneration(ask) => self.stop_generation(connection, ask).await,
            Ask::Regenerate(ask) => self.regenerate(connection, request_no, ask).await,
            Ask::ModelSelect(ask) => self.model_select(connection, ask).await,
            Ask::Typing(ask) => self.typing(connection, &ask),
            Ask::Read(ask) => self.read(connection, &ask).await,
            Ask::HelpRequest(ask) => self.help_request(connection, ask).await,
            Ask::AdminMessage(ask) => self.admin_message(connection, ask).await,
            Ask::AdminLeave(ask) => self.admin_leave(connection, ask).await,
        }
    }

    /// A connection that moved here from another brain reads on where it was. Its client does not know of the move, so
    /// this is tried until it succeeds; where it cannot, the connection is closed and its client resumes by itself.
    pub async fn resume(&self, connection: &Arc<Connection>, resume: &proto::Resume) {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        while !connection.is_closed() {
            let Err(failure) = self.try_resume(connection, resume).await else { return };
            if failure.code == ErrorCode::NotFound {
                connection.deliver(Message::Notice(session_deleted(&resume.session_id)));
                return;
            }
            log_refusal(connection, "resume", &failure);
            if begun.elapsed() > RESUME_PATIENCE || !failure.code.retryable() {
                connection.kick(CLOSE_RESTART, "unavailable", "The session cannot be continued here; connect again.");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn try_resume(&self, connection: &Arc<Connection>, resume: &proto::Resume) -> Result<(), Failure> {
        let id = convert::session_id(&resume.session_id)?;
        let session = self.existing(id).await?;
        may_read(connection, &session)?;
        self.sessions.catch_up(&session).await?;
        if resume.after_seq > session.seq() || (!resume.epoch.is_empty() && resume.epoch != session.epoch) {
            // Another log than the one its client knows: only the client itself can begin anew.
            return Err(Failure::with_message(ErrorCode::Conflict, "The session's log was replaced."));
        }
        let epoch = resume.epoch.clone();
        let at = OpenAt { after_seq: resume.after_seq, epoch, limit: u64::MAX, request_no: None };
        self.sessions.open(&session, connection, at).await
    }

    /// The user's own session.
    async fn own(&self, connection: &Connection, id: SessionId) -> Result<Arc<Session>, Failure> {
        let session = self.existing(id).await?;
        // The same words as for a session that does not exist: nobody learns whose ids are taken.
        if session.owner == connection.principal().user { Ok(session) } else { Err(ErrorCode::NotFound.into()) }
    }

    /// The user's own session, or anybody's for an admin.
    async fn readable(&self, connection: &Connection, id: &str) -> Result<Arc<Session>, Failure> {
        let session = self.existing(convert::session_id(id)?).await?;
        may_read(connection, &session)?;
        Ok(session)
    }

    async fn existing(&self, id: SessionId) -> Result<Arc<Session>, Failure> {
        self.sessions.get(id).await?.ok_or_else(|| ErrorCode::NotFound.into())
    }

    async fn own_by_text(&self, connection: &Connection, id: &str) -> Result<Arc<Session>, Failure> {
        self.own(connection, convert::session_id(id)?).await
    }

    async fn session_open(
        &self,
        connection: &Connection,
        request_no: u32,
        ask: proto::SessionOpen,
    ) -> Result<Reply, Failure> {
        let id = convert::session_id(&ask.session_id)?;
        let user = connection.principal().user.clone();
        self.check_name(&ask.name)?;
        let session = match self.sessions.get(id).await? {
            Some(session) => Some(session),
            None if ask.create => {
                let model_id = self.model_or_default(&ask.model_id)?;
                self.sessions.create(id, &user, model_id, &ask.name).await?
            }
            None => None,
        };
        let session = session.filter(|session| session.owner == user).ok_or(ErrorCode::NotFound)?;
        let limit = self.current.get().limits.replay_entries;
        let at = OpenAt { after_seq: ask.after_seq, epoch: ask.epoch, limit, request_no: Some(request_no) };
        self.opening(session, at).await
    }

    async fn admin_watch(
        &self,
        connection: &Connection,
        request_no: u32,
        ask: proto::AdminWatch,
    ) -> Result<Reply, Failure> {
        must_be_admin(connection)?;
        let session = self.existing(convert::session_id(&ask.session_id)?).await?;
        self.opening(session, self.watching(request_no, ask.after_seq)).await
    }

    fn watching(&self, request_no: u32, after_seq: u64) -> OpenAt {
        let limit = self.current.get().limits.replay_entries;
        OpenAt { after_seq, epoch: String::new(), limit, request_no: Some(request_no) }
    }

    /// Everything about an open that may fail before its reply.
    async fn opening(&self, session: Arc<Session>, at: OpenAt) -> Result<Reply, Failure> {
        self.sessions.catch_up(&session).await?;
        Ok(Reply::Open(session, at))
    }

    async fn session_list(&self, connection: &Connection, ask: proto::SessionList) -> Result<Reply, Failure> {
        let filter = match ask.state() {
            proto::SessionState::Unspecified => StateFilter::Any,
            proto::SessionState::Active => StateFilter::Active,
            proto::SessionState::Ended => StateFilter::Ended,
        };
        let after = if ask.cursor.is_empty() { None } else { Some(read_cursor(&ask.cursor)?) };
        let limit = page(ask.limit)?;
        let user = connection.principal().user.clone();
        let rows = self.sessions.store.list_sessions(&user, filter, after, limit).await;
        let rows = rows.map_err(|error| self.sessions.list_failed(&error))?;
        let full = rows.len() == limit as usize;
        let next_cursor = rows.last().filter(|_| full).map(|row| write_cursor(row.summary.last_at, row.id));
        let mut sessions = Vec::with_capacity(rows.len());
        for row in rows {
            // Otherwise erased since, or its key cannot be unwrapped (logged): the rest of the page is unharmed.
            if let Ok(Some(session)) = self.sessions.listed(row) {
                sessions.push(session.read(|live| convert::session(&session, live)));
            }
        }
        let next_cursor = next_cursor.unwrap_or_default();
        Ok(Reply::with(Message::Sessions(proto::Sessions { sessions, next_cursor })))
    }

    async fn session_rename(&self, connection: &Connection, ask: proto::SessionRename) -> Result<Reply, Failure> {
        self.check_name(&ask.name)?;
        let session = self.own_by_text(connection, &ask.session_id).await?;
        self.sessions.rename(&session, &ask.name).await?;
        Ok(Reply::Done)
    }

    async fn session_delete(&self, connection: &Connection, ask: proto::SessionDelete) -> Result<Reply, Failure> {
        let id = convert::session_id(&ask.session_id)?;
        let session = match self.own(connection, id).await {
            Ok(session) => session,
            // Asked again, it has been done.
            Err(_) if self.sessions.was_erased(id, &connection.principal().user).await? => return Ok(Reply::Done),
            Err(failure) => return Err(failure),
        };
        self.turns.abandon(&session).await;
        self.sessions.erase(&session).await?;
        Ok(Reply::Done)
    }

    async fn history(&self, connection: &Connection, ask: proto::History) -> Result<Reply, Failure> {
        let session = self.readable(connection, &ask.session_id).await?;
        let before = if ask.before_seq == 0 { u64::MAX } else { ask.before_seq };
        let rows = self.sessions.store.entries_before(session.id, before, page(ask.limit)?).await;
        let rows = rows.map_err(|error| self.sessions.storage(&session, &error))?;
        let mut entries: Vec<_> = rows.into_iter().map(|row| convert::entry(&session.unseal(row))).collect();
        let mut bytes = 0;
        let fit = entries.iter().rev().take_while(|entry| {
            bytes += entry.content.len();
            bytes <= PAGE_BYTES
        });
        // The latest ones, so that the client goes on from the first it got; one at least.
        let skip = entries.len() - fit.count().clamp(1.min(entries.len()), entries.len());
        entries.drain(..skip);
        Ok(Reply::with(Message::Entries(proto::Entries { session_id: ask.session_id, entries })))
    }

    fn typing(&self, connection: &Connection, ask: &proto::Typing) -> Result<Reply, Failure> {
        let id = convert::session_id(&ask.session_id)?;
        let session = connection.opened(id).ok_or(ErrorCode::NotFound)?;
        if connection.may_type(id, Instant::now()) {
            let principal = connection.principal();
            let user = Some(participant(&session, connection));
            let message = Message::Typing(proto::TypingEvent { session_id: id.to_string(), user, active: ask.active });
            session.read(|live| live.broadcast_to(&message, |other| other.principal().user != principal.user));
        }
        Ok(Reply::Done)
    }

    async fn read(&self, connection: &Connection, ask: &proto::Read) -> Result<Reply, Failure> {
        let session = self.readable(connection, &ask.session_id).await?;
        let owner = session.owner == connection.principal().user;
        if !owner || self.sessions.mark_read(&session, ask.seq) {
            let seq = ask.seq.min(session.seq());
            let user = Some(participant(&session, connection));
            let message = Message::Read(proto::ReadEvent { session_id: session.id.to_string(), user, seq });
            session.read(|live| live.broadcast_to(&message, |other| !std::ptr::eq(other, connection)));
        }
        Ok(Reply::Done)
    }

    fn check_name(&self, name: &str) -> Result<(), Failure> {
        let max = self.current.get().limits.max_name_chars;
        if name.chars().count() > max {
            return Err(Failure::too_large("name", format!("a name has at most {max} characters")));
        }
        Ok(())
    }

    /// The model named, or the default where none is.
    fn model_or_default(&self, model_id: &str) -> Result<String, Failure> {
        let tunables = self.current.get();
        if model_id.is_empty() {
            return Ok(tunables.catalog.default_model().id.clone());
        }
        tunables.catalog.get(model_id).map(|model| model.id.clone()).ok_or_else(|| ErrorCode::ModelUnavailable.into())
    }
}

fn close(connection: &Connection, ask: &proto::SessionClose) -> Result<Reply, Failure> {
    if let Some(session) = connection.forget(convert::session_id(&ask.session_id)?) {
        session.unsubscribe(connection);
    }
    Ok(Reply::Done)
}

fn must_be_admin(connection: &Connection) -> Result<(), Failure> {
    if connection.principal().is_admin() { Ok(()) } else { Err(ErrorCode::Forbidden.into()) }
}

/// The owner and admins may read a session; to others it does not exist.
fn may_read(connection: &Connection, session: &Session) -> Result<(), Failure> {
    let principal = connection.principal();
    if principal.is_admin() || session.owner == principal.user { Ok(()) } else { Err(ErrorCode::NotFound.into()) }
}

/// ConfigErrors of the service are for the operator too; what clients do wrong is not.
fn log_refusal(connection: &Connection, kind: &str, failure: &Failure) {
    let error_id = &failure.error_id;
    if failure.code.http_status() >= 500 {
        tracing::warn!(connection = %connection.id, kind, error_id, code = failure.code.as_str(), "request failed");
    } else {
        tracing::debug!(connection = %connection.id, kind, error_id, %failure, "request refused");
    }
}

/// The person on this connection, in the role they have in this session.
fn participant(session: &Session, connection: &Connection) -> proto::Person {
    let principal = connection.principal();
    let role = if session.owner == principal.user { proto::SenderRole::User } else { proto::SenderRole::Admin };
    convert::person(&convert::person_of(&principal), role)
}

fn page(limit: u32) -> Result<u32, Failure> {
    match limit {
        0 => Ok(DEFAULT_PAGE),
        1..=MAX_PAGE => Ok(limit),
        _ => Err(Failure::invalid("limit", format!("limit must be between 1 and {MAX_PAGE}"))),
    }
}

fn write_cursor(last_at: Timestamp, id: SessionId) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}.{id}", last_at.0))
}

fn read_cursor(cursor: &str) -> Result<SessionCursor, Failure> {
    let parsed = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let (last_at, id) = text.split_once('.')?;
        Some(SessionCursor { last_at: Timestamp(last_at.parse().ok()?), id: id.parse().ok()? })
    };
    parsed().ok_or_else(|| Failure::invalid("cursor", "cursor must be one this server gave"))
}

/// The request's name in metrics and logs.
fn kind_of(ask: &Ask) -> &'static str {
    match ask {
        Ask::SessionOpen(_) => "session_open",
        Ask::SessionClose(_) => "session_close",
        Ask::SessionList(_) => "session_list",
        Ask::SessionRename(_) => "session_rename",
        Ask::SessionEnd(_) => "session_end",
        Ask::SessionDelete(_) => "session_delete",
        Ask::History(_) => "history",
        Ask::UserMessage(_) => "user_message",
        Ask::StopGeneration(_) => "stop_generation",
        Ask::Regenerate(_) => "regenerate",
        Ask::ModelSelect(_) => "model_select",
        Ask::Typing(_) => "typing",
        Ask::Read(_) => "read",
        Ask::HelpRequest(_) => "help_request",
        Ask::AdminJoin(_) => "admin_join",
        Ask::AdminMessage(_) => "admin_message",
        Ask::AdminLeave(_) => "admin_leave",
        Ask::AdminWatch(_) => "admin_watch",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_anything_else_is_refused() {
        let id = SessionId::generate();
        let cursor = read_cursor(&write_cursor(Timestamp(17), id)).unwrap();
        assert_eq!(cursor, SessionCursor { last_at: Timestamp(17), id });
        for bad in ["", "x", "MTc", "%%%", &URL_SAFE_NO_PAD.encode("17.nope")] {
            assert_eq!(read_cursor(bad).unwrap_err().field.as_deref(), Some("cursor"), "{bad}");
        }
    }

    #[test]
    fn a_page_is_bounded() {
        assert_eq!(page(0), Ok(50));
        assert_eq!(page(100), Ok(100));
        assert_eq!(page(1_000_000_000).unwrap_err().code, ErrorCode::InvalidMessage);
    }
}
