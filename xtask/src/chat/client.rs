//! The main loop: reads lines, exchanges frames with the gateway, prints text, and reconnects after a lost connection.

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

/// The idle timeout of a connection before the server has sent its heartbeat interval.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The delay of a timer that is not set.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The options of the client.
pub(super) struct Options {
    pub(super) url: String,
    pub(super) token: String,
    pub(super) session: Uuid,
    /// The lines come from a person: each is handled at once, and the end of the lines ends the program.
    pub(super) terminal: bool,
    /// If the lines come from a script: how long the client waits for the server.
    pub(super) patience: Duration,
}

/// How a connection ended.
enum End {
    /// The user ended the program.
    Quit,
    /// The connection was lost or closed.
    Lost(Disconnect),
}

/// Runs until `lines` end. Returns whether every message was answered; always `true` in a terminal.
pub(super) async fn run(options: Options, lines: mpsc::Receiver<String>, out: impl Write) -> Result<bool> {
    let mut client = Client {
        conversation: Conversation::new(options.session),
        input: Input { lines, next: None, done: false },
        out,
        active_at: Instant::now(),
        reconnect_after: None,
        options,
    };
    let mut attempt = 0;
    loop {
        let connection = tokio::select! {
            connection = connect(&client.options.url, &client.options.token) => connection,
            () = sleep_until(client.active_at + client.options.patience), if client.is_waiting() => return Err(client.timed_out()),
        };
        let end = match connection {
            Ok(socket) => client.serve(socket, &mut attempt).await?,
            Err(loss) => End::Lost(loss),
        };
        client.conversation.disconnected();
        let (why, after) = match end {
            End::Quit => {
                client.print()?;
                return Ok(client.succeeded());
            }
            End::Lost(Disconnect::Final(why)) => {
                client.print()?;
                bail!("{why}");
            }
            End::Lost(Disconnect::Retry(why, after)) => (why, after.or(client.reconnect_after.take())),
        };
        let wait = after.unwrap_or_else(|| backoff(attempt));
        attempt += 1;
        client.conversation.note(&format!("{why}; reconnecting in {:.1} s", wait.as_secs_f64()));
        if client.pause(wait).await? {
            return Ok(client.succeeded());
        }
    }
}

struct Client<W> {
    options: Options,
    conversation: Conversation,
    input: Input,
    out: W,
    /// When the server last sent a frame, or the client last sent a request.
    active_at: Instant,
    /// The delay before the next connection, as the server asked for it.
    reconnect_after: Option<Duration>,
}

impl<W: Write> Client<W> {
    /// Serves one connection until it ends.
    async fn serve(&mut self, mut socket: Socket, attempt: &mut u32) -> Result<End> {
        let mut idle_timeout = IDLE_TIMEOUT;
        let mut alive = Instant::now();
        let mut retry: Option<Instant> = None;
        loop {
            self.print()?;
            if self.input.finished() && (self.options.terminal || self.conversation.idle()) {
                // The result is ignored: the program ends in any case.
                drop(socket.close(None).await);
                return Ok(End::Quit);
            }
            let reaction = tokio::select! {
                frame = socket.next() => {
                    alive = Instant::now();
                    match frame {
                        Some(Ok(Message::Text(text))) => {
                            let message: ServerFrame = serde_json::from_str(&text).context("a frame of the server is not chatbox.v1")?;
                            self.active_at = alive;
                            if let ServerFrame::Welcome(welcome) = &message {
                                *attempt = 0;
                                idle_timeout = welcome.heartbeat_interval_ms.map_or(IDLE_TIMEOUT, |ms| Duration::from_millis(ms) * 5 / 2);
                            }
                            self.conversation.message(message)
                        }
                        Some(Ok(Message::Close(frame))) => return Ok(End::Lost(closed(frame.as_ref()))),
                        Some(Ok(_)) => Reaction::default(),
                        Some(Err(error)) => return Ok(End::Lost(Disconnect::Retry(format!("connection lost: {error}"), None))),
                        None => return Ok(End::Lost(closed(None))),
                    }
                }
                line = self.input.line(|line| self.options.terminal || self.conversation.is_ready_for(line)) => {
                    self.active_at = Instant::now();
                    line.map_or_else(Reaction::default, |line| self.conversation.line(line))
                }
                () = sleep_until(retry.unwrap_or_else(|| Instant::now() + NEVER)) => {
                    retry = None;
                    self.conversation.again()
                }
                () = sleep_until(alive + idle_timeout) => {
                    return Ok(End::Lost(Disconnect::Retry("the server has sent nothing within the idle timeout".to_owned(), None)));
                }
                () = sleep_until(self.active_at + self.options.patience), if self.is_waiting() => return Err(self.timed_out()),
            };
            for frame in reaction.frames {
                if let Err(error) = socket.send(Message::text(frame)).await {
                    return Ok(End::Lost(Disconnect::Retry(format!("connection lost: {error}"), None)));
                }
            }
            if let Some(why) = reaction.fatal {
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

    /// Waits between two connections. Messages typed meanwhile are sent on the next one. Returns whether the user ended
    /// the program.
    async fn pause(&mut self, wait: Duration) -> Result<bool> {
        let until = Instant::now() + wait;
        loop {
            self.print()?;
            if self.input.finished() && self.options.terminal {
                return Ok(true);
            }
            tokio::select! {
                () = sleep_until(until) => return Ok(false),
                line = self.input.line(|line| self.options.terminal || self.conversation.is_ready_for(line)) => {
                    if line.is_some_and(|line| self.conversation.line(line).quit) {
                        return Ok(true);
                    }
                }
                () = sleep_until(self.active_at + self.options.patience), if self.is_waiting() => return Err(self.timed_out()),
            }
        }
    }

    /// Whether a script waits for the server. If not, it waits for its next line.
    fn is_waiting(&self) -> bool {
        !self.options.terminal && !self.conversation.idle()
    }

    /// The result of the run. A person has seen failed answers, so only a script gets them as a failure.
    fn succeeded(&self) -> bool {
        self.options.terminal || self.conversation.all_answered()
    }

    fn timed_out(&self) -> anyhow::Error {
        anyhow!("the server has sent nothing for {} s", self.options.patience.as_secs())
    }

    fn print(&mut self) -> Result<()> {
        let text = self.conversation.take_output();
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).context("cannot write the output")
    }
}

/// The lines of input. `next` is read, but not handled yet.
struct Input {
    lines: mpsc::Receiver<String>,
    next: Option<Line>,
    done: bool,
}

impl Input {
    /// The next line that may be handled now, as `ready` decides. `None`: the input has just ended. Never ready after that.
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
            // The caller calls again after the next event.
            None => std::future::pending().await,
        }
    }

    fn finished(&self) -> bool {
        self.done && self.next.is_none()
    }
}

/// Reads standard input on a thread that ends with the process, because a read cannot be interrupted.
pub(super) fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            // The input ends at the first line that is not UTF-8.
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
