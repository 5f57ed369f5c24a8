//! A chat client: one WebSocket, all received frames, and the log of each open session. Frames are checked against
//! docs/asyncapi.yaml in both directions.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use uuid::Uuid;

use super::frame::Frame;
use super::log::{Seen, SessionLog};
use super::raw_http::HttpResponse;
use super::schema::{self, Sender};
use super::waits::{TIMEOUT, within};

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The close code; 1005 where the close frame had none, 1006 where there was no close frame.
    pub code: u16,
    /// The close frame's text.
    pub reason: String,
}

/// A connected client.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<TcpStream>,
    /// The response to the handshake.
    pub handshake: HttpResponse,
    /// The `welcome` frame.
    pub welcome: Value,
    /// Every received frame, in order.
    pub frames: Vec<Frame>,
    /// The first frame that no [`Connection::until`] has passed.
    cursor: usize,
    logs: BTreeMap<String, SessionLog>,
    closed: Option<Closed>,
    requests: u64,
    /// How long a wait may take.
    timeout: Duration,
}

impl Connection {
    /// Takes over an upgraded socket and waits for `welcome`.
    ///
    /// # Errors
    /// Another frame came first, or none in time.
    pub async fn welcomed(socket: WebSocketStream<TcpStream>, handshake: HttpResponse) -> Result<Self> {
        let mut connection = Self {
            socket,
            handshake,
            welcome: Value::Null,
            frames: Vec::new(),
            cursor: 0,
            logs: BTreeMap::new(),
            closed: None,
            requests: 0,
            timeout: TIMEOUT,
        };
        let welcome = connection.next_frame().await?;
        ensure!(welcome.is("welcome"), "the first frame is not welcome: {}", welcome.raw);
        connection.welcome = welcome.json;
        Ok(connection)
    }

    /// The id the server gave this connection.
    pub fn id(&self) -> &str {
        self.welcome["connection_id"].as_str().unwrap_or_default()
    }

    /// The client's log of a session.
    ///
    /// # Errors
    /// The session was never opened on this connection.
    pub fn log(&self, session: &str) -> Result<&SessionLog> {
        self.logs.get(session).with_context(|| format!("session {session} was not opened on this connection"))
    }

    /// From now on each wait may take this long.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// From now on the session's last deltas may be missing; see [`SessionLog::may_miss_deltas`].
    pub fn may_miss_deltas(&mut self, session: &str) {
        self.logs.entry(session.to_owned()).or_default().may_miss_deltas = true;
    }

    /// Sends a text frame without any check.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn send_raw(&mut self, text: impl Into<String>) -> Result<()> {
        self.send_message(Message::text(text.into())).await
    }

    /// Sends any WebSocket message.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn send_message(&mut self, message: Message) -> Result<()> {
        within("room in the socket", self.socket.send(message)).await??;
        Ok(())
    }

    /// Sends a request as it is.
    ///
    /// # Errors
    /// The connection is closed, or docs/asyncapi.yaml describes no such request.
    pub async fn send(&mut self, request: &Value) -> Result<()> {
        schema::check(Sender::Client, request)?;
        if matches!(request["type"].as_str(), Some("session_open" | "admin_watch" | "admin_join"))
            && let Some(session) = request["session_id"].as_str()
        {
            self.logs.entry(session.to_owned()).or_default().opened(request["after_seq"].as_u64().unwrap_or_default());
        }
        self.send_raw(request.to_string()).await
    }

    /// Sends a request under a new `id` and returns that id.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn post(&mut self, mut request: Value) -> Result<String> {
        let id = self.next_id();
        request["id"] = json!(id);
        self.send(&request).await?;
        Ok(id)
    }

    fn next_id(&mut self) -> String {
        self.requests += 1;
        format!("r{}", self.requests)
    }

    /// Sends a request and waits for its reply, success or error.
    ///
    /// # Errors
    /// No reply came in time.
    pub async fn ask(&mut self, request: Value) -> Result<Frame> {
        let id = self.post(request).await?;
        self.reply(&id).await
    }

    /// Sends a request that docs/asyncapi.yaml does not allow, and waits for its reply.
    ///
    /// # Errors
    /// The request is allowed, or no reply came in time.
    pub async fn ask_invalid(&mut self, mut request: Value) -> Result<Frame> {
        let id = self.next_id();
        request["id"] = json!(id);
        ensure!(schema::check(Sender::Client, &request).is_err(), "docs/asyncapi.yaml allows {request}");
        self.send_raw(request.to_string()).await?;
        self.reply(&id).await
    }

    /// Sends a request and expects success.
    ///
    /// # Errors
    /// The reply is an error.
    pub async fn ask_ok(&mut self, request: Value) -> Result<Frame> {
        let what = request.to_string();
        let reply = self.ask(request).await?;
        ensure!(!reply.is("error"), "{what} was refused: {}", reply.raw);
        Ok(reply)
    }

    /// Sends a request and expects an error with this code.
    ///
    /// # Errors
    /// The reply is something else.
    pub async fn ask_refused(&mut self, request: Value, code: &str) -> Result<Frame> {
        let what = request.to_string();
        let reply = self.ask(request).await?;
        ensure!(reply.is("error") && reply.text("/code") == code, "{what}: expected {code}, got {}", reply.raw);
        Ok(reply)
    }

    /// The reply to the request `id`, also if it has been read before.
    ///
    /// # Errors
    /// None came in time.
    pub async fn reply(&mut self, id: &str) -> Result<Frame> {
        self.seen(&format!("the reply to {id}"), |frame| frame.text("/reply_to") == id).await
    }

    /// The first frame that fits, among those received and those to come.
    ///
    /// # Errors
    /// None came in time.
    pub async fn seen(&mut self, what: &str, fits: impl Fn(&Frame) -> bool) -> Result<Frame> {
        let mut from = 0;
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(found) = self.frames[from..].iter().find(|frame| fits(frame)) {
                return Ok(found.clone());
            }
            from = self.frames.len();
            self.pump(deadline).await.with_context(|| self.story(what))?;
        }
    }

    /// The next frame in order. Each frame is returned once.
    ///
    /// # Errors
    /// None came in time, or the connection ended.
    pub async fn next_frame(&mut self) -> Result<Frame> {
        self.until("any frame", |_| true).await
    }

    /// Skips frames in order until one fits. The next call goes on behind it.
    ///
    /// # Errors
    /// None came in time, or the connection ended.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&Frame) -> bool) -> Result<Frame> {
        let deadline = Instant::now() + self.timeout;
        loop {
            while let Some(frame) = self.frames.get(self.cursor) {
                self.cursor += 1;
                if fits(frame) {
                    return Ok(frame.clone());
                }
            }
            self.pump(deadline).await.with_context(|| self.story(what))?;
        }
    }

    /// Reads frames until `state` returns something from the session's log, and returns that.
    ///
    /// # Errors
    /// It did not become so in time.
    pub async fn log_until<T>(
        &mut self,
        session: &str,
        what: &str,
        state: impl Fn(&SessionLog) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(found) = state(self.log(session)?) {
                return Ok(found);
            }
            self.pump(deadline).await.with_context(|| self.story(what))?;
        }
    }

    /// Opens a session, creates it if it is absent, and waits until it is ready. Returns the `session` frame.
    ///
    /// # Errors
    /// It was refused.
    pub async fn open(&mut self, session: &str) -> Result<Frame> {
        self.open_with(json!({ "type": "session_open", "session_id": session, "create": true })).await
    }

    /// Opens a session with this request.
    ///
    /// # Errors
    /// It was refused.
    pub async fn open_with(&mut self, request: Value) -> Result<Frame> {
        let session = request["session_id"].as_str().unwrap_or_default().to_owned();
        let ready = self.logs.get(&session).map_or(0, |log| log.ready);
        let reply = self.ask_ok(request).await?;
        ensure!(reply.is("session"), "session_open was answered with {}", reply.raw);
        self.log_until(&session, "session_ready", |log| (log.ready > ready).then_some(())).await?;
        Ok(reply)
    }

    /// Sends a user message and waits for its acknowledgement.
    ///
    /// # Errors
    /// It was refused.
    pub async fn say(&mut self, session: &str, text: &str) -> Result<Frame> {
        self.say_as(session, &Uuid::new_v4().to_string(), text).await
    }

    /// As [`Connection::say`], under this id.
    ///
    /// # Errors
    /// It was refused.
    pub async fn say_as(&mut self, session: &str, client_msg_id: &str, text: &str) -> Result<Frame> {
        let ack = self.ask_ok(user_message(session, client_msg_id, text)).await?;
        ensure!(ack.is("ack") && ack.text("/client_msg_id") == client_msg_id, "not its acknowledgement: {}", ack.raw);
        Ok(ack)
    }

    /// Waits until the answer to the message at `seq` has ended, and returns its entry.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn answer(&mut self, session: &str, seq: u64) -> Result<Value> {
        let ended = |log: &SessionLog| {
            log.answer_to(seq).filter(|(_, seen)| !seen.streaming()).map(|(_, seen)| seen.entry.clone())
        };
        self.log_until(session, &format!("the end of the answer to {seq}"), ended).await
    }

    /// Waits until the answer to `seq` shows this text (or more of it), and returns its seq.
    ///
    /// # Errors
    /// It did not in time.
    pub async fn shown(&mut self, session: &str, seq: u64, text: &str) -> Result<u64> {
        let shows = |log: &SessionLog| {
            log.answer_to(seq).filter(|(_, seen): &(u64, &Seen)| seen.content.starts_with(text)).map(|(seq, _)| seq)
        };
        self.log_until(session, &format!("{text:?} in the answer to {seq}"), shows).await
    }

    /// Sends a message and waits for the end of its answer.
    ///
    /// # Errors
    /// One of the two did not come.
    pub async fn converse(&mut self, session: &str, text: &str) -> Result<Value> {
        let ack = self.say(session, text).await?;
        self.answer(session, ack.number("/seq").context("an ack without seq")?).await
    }

    /// Sends a `ping` and reads everything until its reply. Returns how many frames came before the reply.
    ///
    /// # Errors
    /// No pong came in time.
    pub async fn settle(&mut self) -> Result<usize> {
        let before = self.frames.len();
        let pong = self.ask(json!({ "type": "ping" })).await?;
        ensure!(pong.is("pong"), "ping was answered with {}", pong.raw);
        Ok(self.frames.len() - before - 1)
    }

    /// Reads on until the server closes the connection.
    ///
    /// # Errors
    /// It did not in time.
    pub async fn closed(&mut self) -> Result<Closed> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(closed) = &self.closed {
                return Ok(closed.clone());
            }
            if let Err(fault) = self.pump(deadline).await
                && self.closed.is_none()
            {
                return Err(fault).with_context(|| self.story("the end of the connection"));
            }
        }
    }

    /// Drops the connection without a close frame, as a lost network does.
    pub fn vanish(self) {
        drop(self);
    }

    /// Closes the connection with a close frame.
    ///
    /// # Errors
    /// The server did not answer the close frame.
    pub async fn leave(mut self) -> Result<()> {
        within("the close", self.socket.close(None)).await??;
        self.closed().await?;
        Ok(())
    }

    /// Reads one frame from the socket.
    async fn pump(&mut self, deadline: Instant) -> Result<()> {
        if let Some(closed) = &self.closed {
            bail!("the connection was closed with {} {:?}", closed.code, closed.reason);
        }
        let message = timeout_at(deadline, self.socket.next()).await.context("not in time")?;
        match message {
            Some(Ok(Message::Text(text))) => self.take(text.as_str().to_owned()),
            Some(Ok(Message::Binary(_))) => bail!("the server sent a binary frame"),
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) = frame.map_or((1005, String::new()), |it| (it.code.into(), it.reason.to_string()));
                self.closed = Some(Closed { code, reason });
                Ok(())
            }
            Some(Ok(_)) => Ok(()), // pings are answered by the library
            Some(Err(_)) | None => {
                self.closed = Some(Closed { code: 1006, reason: String::new() });
                Ok(())
            }
        }
    }

    fn take(&mut self, raw: String) -> Result<()> {
        let frame = Frame::parse(raw)?;
        schema::check(Sender::Server, &frame.json)?;
        let session = if frame.is("session") { frame.text("/session/id") } else { frame.text("/session_id") };
        let outcome = match self.logs.get_mut(session) {
            Some(log) => log.apply(&frame),
            None => Ok(()),
        };
        let raw = frame.raw.clone();
        self.frames.push(frame);
        outcome.with_context(|| format!("this frame breaks the protocol: {raw}"))
    }

    fn story(&self, what: &str) -> String {
        let from = self.frames.len().saturating_sub(12);
        let frames: Vec<&str> = self.frames[from..].iter().map(|frame| frame.raw.as_str()).collect();
        format!("waiting for {what}; the last frames were:\n{}", frames.join("\n"))
    }
}

/// The request that sends a message.
pub fn user_message(session: &str, client_msg_id: &str, text: &str) -> Value {
    json!({ "type": "user_message", "session_id": session, "client_msg_id": client_msg_id, "content": text })
}

/// A new session id.
pub fn new_session() -> String {
    Uuid::new_v4().to_string()
}
