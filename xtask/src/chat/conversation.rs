//! The state of one session in the client: messages without an acknowledgement or an answer, the log, and the printed text.
//! It has no socket: server messages and input lines go in, frames and text come out.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use chatbox_client::{Change, EntryState, Log, Role, ServerFrame, Session, Welcome};
use serde_json::{Value, json};
use uuid::Uuid;

use super::command::{HELP, Line};
use super::screen::Screen;

/// How many gaps in a row are repaired by opening the session again. One more is an error of the server.
const MAX_GAPS: u32 = 5;
/// The delay before a retry, unless the server sends one.
const RETRY: Duration = Duration::from_secs(1);
/// The number of entries that `/history` requests, and of sessions that `/list` requests.
const PAGE: u32 = 20;

/// What the main loop must do after a server message or an input line.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reaction {
    /// Send these frames, in this order.
    pub(super) frames: Vec<String>,
    /// Call [`Conversation::again`] after this time.
    pub(super) retry_in: Option<Duration>,
    /// Wait for this time before reconnecting, when the server closes the connection.
    pub(super) reconnect_after: Option<Duration>,
    /// End the program.
    pub(super) quit: bool,
    /// The server rejected the session for good: end the program with this error.
    pub(super) fatal: Option<String>,
}

impl Reaction {
    fn send(frame: &Value) -> Self {
        Self { frames: vec![frame.to_string()], ..Self::default() }
    }
}

/// A message without an acknowledgement. It is sent again, with the same id, until it has one.
#[derive(Debug)]
struct Pending {
    client_msg_id: String,
    content: String,
}

/// A request without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Open,
    Stop,
    List,
    History,
}

/// One session, over any number of connections.
#[derive(Debug)]
pub(super) struct Conversation {
    me: String,
    session: Uuid,
    log: Log,
    screen: Screen,
    pending: Vec<Pending>,
    /// The seqs of own messages without an answer.
    awaiting: BTreeSet<u64>,
    requests: HashMap<String, Request>,
    next_id: u64,
    /// The session is open on this connection.
    open: bool,
    /// An admin assists: the AI does not answer.
    assisted: bool,
    gaps: u32,
    failed: bool,
}

impl Conversation {
    pub(super) fn new(session: Uuid) -> Self {
        Self {
            me: String::new(),
            session,
            log: Log::default(),
            screen: Screen::default(),
            pending: Vec::new(),
            awaiting: BTreeSet::new(),
            requests: HashMap::new(),
            next_id: 0,
            open: false,
            assisted: false,
            gaps: 0,
            failed: false,
        }
    }

    /// Text to be printed since the last call.
    pub(super) fn take_output(&mut self) -> String {
        self.screen.take()
    }

    /// Prints a line about the client itself.
    pub(super) fn note(&mut self, text: &str) {
        self.screen.note(text);
    }

    /// Whether every request has its reply and every message its answer.
    pub(super) fn idle(&self) -> bool {
        self.open && self.pending.is_empty() && self.awaiting.is_empty() && self.requests.is_empty()
    }

    /// Whether a line of a script may be handled now. Each line waits until the line before it is done, except `/stop`
    /// during an answer.
    pub(super) fn is_ready_for(&self, line: &Line) -> bool {
        self.idle() || (*line == Line::Stop && self.log.streaming())
    }

    /// Whether every message was answered without an error.
    pub(super) fn all_answered(&self) -> bool {
        !self.failed && self.pending.is_empty() && self.awaiting.is_empty()
    }

    /// The connection has ended. Its requests get no replies.
    pub(super) fn disconnected(&mut self) {
        self.open = false;
        self.requests.clear();
    }

    fn connected(&mut self, welcome: Welcome) -> Reaction {
        let name = welcome.user.name.or_else(|| welcome.user.id.clone()).unwrap_or_default();
        self.me = welcome.user.id.unwrap_or_default();
        let model = welcome.default_model_id.map(|model| format!(", model {model}")).unwrap_or_default();
        self.note(&format!(
            "connected as {name}: connection {}, session {}{model}",
            welcome.connection_id, self.session
        ));
        self.open_session()
    }

    fn open_session(&mut self) -> Reaction {
        self.requests.retain(|_, request| *request != Request::Open);
        self.open = false;
        let mut frame = json!({ "type": "session_open", "create": true, "after_seq": self.log.after_seq() });
        if let Some(epoch) = self.log.epoch() {
            frame["epoch"] = epoch.into();
        }
        self.ask(Request::Open, frame)
    }

    /// Sends a request about this session with a new id.
    fn ask(&mut self, request: Request, mut frame: Value) -> Reaction {
        self.next_id += 1;
        let id = format!("r{}", self.next_id);
        frame["id"] = id.clone().into();
        if request != Request::List {
            frame["session_id"] = self.session.to_string().into();
        }
        self.requests.insert(id, request);
        Reaction::send(&frame)
    }

    /// Opens the session again, or sends the messages without an acknowledgement again if it is open.
    pub(super) fn again(&mut self) -> Reaction {
        if self.open {
            return Reaction {
                frames: self.pending.iter().map(|message| self.frame(message)).collect(),
                ..Reaction::default()
            };
        }
        self.open_session()
    }

    fn frame(&self, message: &Pending) -> String {
        json!({
            "type": "user_message", "id": message.client_msg_id, "session_id": self.session.to_string(),
            "client_msg_id": message.client_msg_id, "content": message.content,
        })
        .to_string()
    }

    /// Handles an input line.
    pub(super) fn line(&mut self, line: Line) -> Reaction {
        match line {
            Line::Empty => Reaction::default(),
            Line::Quit => Reaction { quit: true, ..Reaction::default() },
            Line::Help => {
                self.screen.text(HELP);
                Reaction::default()
            }
            Line::Unknown(command) => {
                self.note(&format!("unknown command {command}; /help lists the commands"));
                Reaction::default()
            }
            Line::Say(content) => {
                let message = Pending { client_msg_id: Uuid::new_v4().to_string(), content };
                let frames = if self.open { vec![self.frame(&message)] } else { Vec::new() };
                self.pending.push(message);
                Reaction { frames, ..Reaction::default() }
            }
            Line::New => {
                if !self.pending.is_empty() {
                    self.note("some messages have no acknowledgement yet; try again later");
                    return Reaction::default();
                }
                let close = json!({ "type": "session_close", "session_id": self.session.to_string() }).to_string();
                self.session = Uuid::new_v4();
                self.log = Log::default();
                self.awaiting.clear();
                self.note(&format!("session {}", self.session));
                let mut reaction = self.open_session();
                reaction.frames.insert(0, close);
                reaction
            }
            // The commands below need a connection. They are not kept for the next one.
            _ if !self.open => {
                self.note("not connected");
                Reaction::default()
            }
            Line::Stop => self.ask(Request::Stop, json!({ "type": "stop_generation" })),
            Line::List => self.ask(Request::List, json!({ "type": "session_list", "limit": PAGE })),
            Line::History => {
                let before = self.log.first().unwrap_or(1);
                self.ask(Request::History, json!({ "type": "history", "before_seq": before, "limit": PAGE }))
            }
        }
    }

    /// Handles a message of the server.
    pub(super) fn message(&mut self, message: ServerFrame) -> Reaction {
        match message {
            ServerFrame::Welcome(welcome) => self.connected(welcome),
            ServerFrame::Session { reply_to, session } => self.session(reply_to.as_deref(), &session),
            ServerFrame::SessionReady { session_id } => {
                if self.here(&session_id) {
                    self.requests.retain(|_, request| *request != Request::Open);
                }
                Reaction::default()
            }
            ServerFrame::Entry { session_id, entry } if self.here(&session_id) => {
                let seq = entry.seq;
                let applied = self.log.entry(entry);
                self.applied(&applied, seq)
            }
            ServerFrame::AiDelta { session_id, delta } if self.here(&session_id) => {
                let applied = self.log.delta(&delta);
                self.applied(&applied, delta.seq)
            }
            ServerFrame::Ack { reply_to, client_msg_id, seq } => {
                self.replied(reply_to.as_deref());
                if let Some(id) = client_msg_id {
                    self.acknowledged(&id, seq);
                }
                Reaction::default()
            }
            ServerFrame::Sessions { reply_to, sessions } => {
                self.replied(reply_to.as_deref());
                for session in &sessions {
                    self.screen.session(session, session.id == self.session.to_string());
                }
                Reaction::default()
            }
            ServerFrame::Entries { reply_to, session_id, entries } => {
                self.replied(reply_to.as_deref());
                if self.here(&session_id) {
                    let mut entries = entries;
                    entries.sort_by_key(|entry| entry.seq);
                    self.note(&format!("{} older entries", entries.len()));
                    entries.iter().for_each(|entry| self.screen.entry(entry, &self.me));
                }
                Reaction::default()
            }
            ServerFrame::Notice { code, message, reconnect_after_ms } => {
                self.note(&format!("{code}: {message}"));
                Reaction { reconnect_after: reconnect_after_ms.map(Duration::from_millis), ..Reaction::default() }
            }
            ServerFrame::Error { reply_to, code, message, retryable, retry_after_ms, error_id } => {
                let id = error_id.map(|id| format!(" (error id {id})")).unwrap_or_default();
                let retry = retryable.then(|| retry_after_ms.map_or(RETRY, Duration::from_millis));
                self.error(reply_to.as_deref(), &format!("{code}: {message}{id}"), retry)
            }
            ServerFrame::Entry { .. } | ServerFrame::AiDelta { .. } | ServerFrame::Other => Reaction::default(),
        }
    }

    fn here(&self, session_id: &str) -> bool {
        Uuid::try_parse(session_id) == Ok(self.session)
    }

    fn replied(&mut self, id: Option<&str>) -> Option<Request> {
        self.requests.remove(id?)
    }

    /// Handles the summary of a session, which follows an open request or a change.
    fn session(&mut self, reply_to: Option<&str>, session: &Session) -> Reaction {
        if !self.here(&session.id) {
            return Reaction::default();
        }
        self.assisted = session.assisting_admin.is_some();
        if self.assisted {
            self.awaiting.clear();
        }
        // The open request has its reply only with session_ready, at the end of the replay.
        if !reply_to.is_some_and(|id| self.requests.get(id) == Some(&Request::Open)) {
            return Reaction::default();
        }
        if self.log.opened(session.epoch.as_deref(), session.reset, session.truncated_before) {
            self.note("the log of the session was replaced; it is printed from its beginning");
        }
        self.open = true;
        self.again()
    }

    fn applied(&mut self, applied: &Change, seq: u64) -> Reaction {
        match applied {
            Change::Nothing => return Reaction::default(),
            // A replay in progress brings the missing entries.
            Change::Gap if self.requests.values().any(|request| *request == Request::Open) => {
                return Reaction::default();
            }
            Change::Gap => {
                self.gaps += 1;
                if self.gaps > MAX_GAPS {
                    let fatal = Some("the events of the server have gaps".to_owned());
                    return Reaction { fatal, ..Reaction::default() };
                }
                return self.open_session();
            }
            Change::Added | Change::Replaced | Change::Grew => self.gaps = 0,
        }
        if let Some(entry) = self.log.get(seq) {
            self.screen.entry(entry, &self.me);
            if entry.sender.role == Role::Ai && entry.state != EntryState::Streaming {
                let awaited = entry.reply_to_seq.is_some_and(|message| self.awaiting.remove(&message));
                self.failed |= awaited && entry.state == EntryState::Failed;
            }
        }
        Reaction::default()
    }

    fn acknowledged(&mut self, id: &str, seq: Option<u64>) {
        let before = self.pending.len();
        self.pending.retain(|message| message.client_msg_id != id);
        let (Some(seq), true) = (seq, self.pending.len() < before) else { return };
        match self.log.answer_to(seq) {
            Some(answer) => self.failed |= answer.state == EntryState::Failed,
            None if self.assisted => {}
            None => drop(self.awaiting.insert(seq)),
        }
    }

    fn error(&mut self, reply_to: Option<&str>, text: &str, retry: Option<Duration>) -> Reaction {
        if reply_to.and_then(|id| self.requests.get(id)) == Some(&Request::Open) && retry.is_none() {
            return Reaction { fatal: Some(text.to_owned()), ..Reaction::default() };
        }
        let request = self.replied(reply_to);
        self.note(text);
        let message = self.pending.iter().position(|message| Some(message.client_msg_id.as_str()) == reply_to);
        match (request, message, retry) {
            (Some(Request::Open), _, Some(wait)) | (_, Some(_), Some(wait)) => {
                return Reaction { retry_in: Some(wait), ..Reaction::default() };
            }
            (_, Some(place), None) => drop(self.pending.remove(place)),
            _ => {}
        }
        self.failed = true;
        Reaction::default()
    }
}

#[cfg(test)]
mod tests;
