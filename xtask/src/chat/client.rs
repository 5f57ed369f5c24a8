//! The loop: lines in, frames out and in, text out; and a new connection whenever the old one is lost.

use std::io::{BufRead as _, Write};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use chatbox_client::{Disconnect, ServerFrame, backoff};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::command::Line;
use super::connection::{Socket, closed, connect};
use super::conversation::{Conversation, Reaction};

/// What a connection may be silent for until the server has named its heartbeat interval.
const SILENCE: Duration = Duration::from_secs(60);
/// Stands for "never" where a timer is not set.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the command line asks for.
pub(super) struct Options {
    pub(super) url: String,
    pub(super) token: String,
    pub(super) session: Uuid,
    /// Lines come from a person: act on each at once, and leave when there are no more.
    pub(super) terminal: bool,
    /// How long a script waits for something to happen.
    pub(super) patience: Duration,
}

/// Why a connection is over.
enum End {
    /// The user has enough.
    Quit,
    /// By itself.
    Lost(Disconnect),
}

/// Chats until `lines` end. Was everything answered?
pub(super) async fn run(options: Options, lines: mpsc::Receiver<String>, out: impl Write) -> Result<bool> {
    let mut client = Client {
        conversation: Conversation::new(options.session),
        input: Input { lines, next: None, done: false },
        out,
        heard: Instant::now(),
        reconnect_after: None,
        options,
    };
    let mut attempt = 0;
    loop {
        let connection = tokio::select! {
            connection = connect(&client.options.url, &client.options.token) => connection,
            () = sleep_until(client.heard + client.options.patience), if client.waits() => return Err(client.impatient()),
        };
        let end = match connection {
            Ok(socket) => client.talk(socket, &mut attempt).await?,
            Err(loss) => End::Lost(loss),
        };
        client.conversation.disconnected();
        let (why, after) = match end {
            End::Quit => {
                client.print()?;
                return Ok(client.well());
            }
            End::Lost(Disconnect::Final(why)) => {
                client.print()?;
                bail!("{why}");
            }
            End::Lost(Disconnect::Retry(why, after)) => (why, after.or(client.reconnect_after.take())),
        };
        let wait = after.unwrap_or_else(|| backoff(attempt));
        attempt += 1;
        client.conversation.note(&format!("{why}; connecting again in {:.1} s", wait.as_secs_f64()));
        if client.pause(wait).await? {
            return Ok(client.well());
        }
    }
}

struct Client<W> {
    options: Options,
    conversation: Conversation,
    input: Input,
    out: W,
    /// When something last came from the server, or was asked of it.
    heard: Instant,
    /// What the server asked to wait before connecting again.
    reconnect_after: Option<Duration>,
}

impl<W: Write> Client<W> {
    /// One connection from its first message to its end.
    async fn talk(&mut self, mut socket: Socket, attempt: &mut u32) -> Result<End> {
        let mut silence = SILENCE;
        let mut alive = Instant::now();
        let mut retry: Option<Instant> = None;
        loop {
            self.print()?;
            if self.input.finished() && (self.options.terminal || self.conversation.idle()) {
                // A close frame is polite and nothing waits for it.
                drop(socket.close(None).await);
                return Ok(End::Quit);
            }
            let reaction = tokio::select! {
                frame = socket.next() => {
                    alive = Instant::now();
                    match frame {
                        Some(Ok(Message::Text(text))) => {
                            let message: ServerFrame = serde_json::from_str(&text).context("the server does not speak chatbox.v1")?;
                            self.heard = alive;
                            if let ServerFrame::Welcome(welcome) = &message {
                                *attempt = 0;
                                silence = welcome.heartbeat_interval_ms.map_or(SILENCE, |ms| Duration::from_millis(ms) * 5 / 2);
                            }
                            self.conversation.message(message)
                        }
                        Some(Ok(Message::Close(frame))) => return Ok(End::Lost(closed(frame.as_ref()))),
                        Some(Ok(_)) => Reaction::default(),
                        Some(Err(error)) => return Ok(End::Lost(Disconnect::Retry(format!("the connection is lost: {error}"), None))),
                        None => return Ok(End::Lost(closed(None))),
                    }
                }
                line = self.input.line(|line| self.options.terminal || self.conversation.takes(line)) => {
                    self.heard = Instant::now();
                    line.map_or_else(Reaction::default, |line| self.conversation.line(line))
                }
                () = sleep_until(retry.unwrap_or_else(|| Instant::now() + FAR)) => {
                    retry = None;
                    self.conversation.again()
                }
                () = sleep_until(alive + silence) => {
                    return Ok(End::Lost(Disconnect::Retry("the server is silent".to_owned(), None)));
                }
                () = sleep_until(self.heard + self.options.patience), if self.waits() => return Err(self.impatient()),
            };
            for frame in reaction.frames {
                if let Err(error) = socket.send(Message::text(frame)).await {
                    return Ok(End::Lost(Disconnect::Retry(format!("the connection is lost: {error}"), None)));
                }
            }
            if let Some(why) = reaction.refused {
                return Ok(End::Lost(Disconnect::Final(why)));
            }
            if reaction.quit {
                drop(socket.close(None).await);
                return Ok(End::Quit);
            }
            retry = reaction.retry_in.map(|wait| Instant::now() + wait).or(retry);
            self.reconnect_after = reaction.reconnect_after.or(self.reconnect_after);
        }
    }

    /// Waits between two connections. What is typed meanwhile is kept for the next; `true`: the user has enough.
    async fn pause(&mut self, wait: Duration) -> Result<bool> {
        let until = Instant::now() + wait;
        loop {
            self.print()?;
            if self.input.finished() && self.options.terminal {
                return Ok(true);
            }
            tokio::select! {
                () = sleep_until(until) => return Ok(false),
                line = self.input.line(|line| self.options.terminal || self.conversation.takes(line)) => {
                    if line.is_some_and(|line| self.conversation.line(line).quit) {
                        return Ok(true);
                    }
                }
                () = sleep_until(self.heard + self.options.patience), if self.waits() => return Err(self.impatient()),
            }
        }
    }

    /// Is a script waiting for the server, and not for its own input?
    fn waits(&self) -> bool {
        !self.options.terminal && !self.conversation.idle()
    }

    /// A person has seen what was answered; a script is told.
    fn well(&self) -> bool {
        self.options.terminal || self.conversation.went_well()
    }

    fn impatient(&self) -> anyhow::Error {
        anyhow!("nothing has come from the server for {} s", self.options.patience.as_secs())
    }

    fn print(&mut self) -> Result<()> {
        let text = self.conversation.take_output();
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).context("cannot write the output")
    }
}

/// Lines of input, one of them looked at in advance.
struct Input {
    lines: mpsc::Receiver<String>,
    next: Option<Line>,
    done: bool,
}

impl Input {
    /// The next line, once `ready` agrees to it; pending for ever when there are no more. `None`: the input has ended.
    async fn line(&mut self, ready: impl Fn(&Line) -> bool) -> Option<Line> {
        if self.next.is_none() {
            if self.done {
                return std::future::pending().await;
            }
            match self.lines.recv().await {
                Some(text) => self.next = Some(Line::parse(&text)),
                None => {
                    self.done = true;
                    return None;
                }
            }
        }
        match self.next.take_if(|line| ready(line)) {
            Some(line) => Some(line),
            // It is asked for again after the next event.
            None => std::future::pending().await,
        }
    }

    fn finished(&self) -> bool {
        self.done && self.next.is_none()
    }
}

/// Reads standard input on a thread of its own, which ends with the process: a read cannot be interrupted.
pub(super) fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            // What is no text is no message.
            let Ok(line) = line else { break };
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests;
