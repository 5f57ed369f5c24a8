//! What the double does with one request: a status, headers, and steps. Steps that speak (`Begin`, `Delta`, `Finish` …)
//! become the bytes of whichever protocol the request came in, so one script serves all three; `Bytes` are sent as they are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::sync::{Mutex, mpsc, watch};

/// One thing to do.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends these bytes as one piece.
    Bytes(Bytes),
    /// Sends what comes before the first text.
    Begin,
    /// Sends a piece of text.
    Delta(String),
    /// Sends what a protocol sends to show that it is alive.
    KeepAlive,
    /// Sends pieces of text with the time inside ([`super::stamp`]) at this pace, this many or without end.
    Stamps {
        /// Between two of them.
        every: Duration,
        /// How many; `None` goes on until the client leaves or the gate opens.
        count: Option<u64>,
        /// Ends them.
        until: Option<Gate>,
    },
    /// Sends the usage and the end, well-formed.
    Finish {
        /// Tokens of the prompt.
        input: u64,
        /// Tokens of the answer.
        output: u64,
    },
    /// Sends the end without any usage.
    FinishWithoutUsage,
    /// Does nothing for a while.
    Wait(Duration),
    /// Does nothing until the test opens the gate.
    Hold(Gate),
    /// Does nothing until the client leaves.
    Stall,
    /// Breaks the connection in the middle of the body.
    Cut,
}

/// A gate that a test opens.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    pub(super) async fn opened(&self) {
        let mut watch = self.0.subscribe();
        // It fails only without a sender, and there is one in `self`.
        let _open = watch.wait_for(|open| *open).await;
    }
}

/// The plan for one request.
#[derive(Debug, Clone)]
pub struct Script {
    /// `None` closes the connection without a word.
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    pub(super) steps: Vec<Step>,
    /// Steps that follow while the test thinks of them.
    pub(super) live: Option<Arc<Mutex<mpsc::UnboundedReceiver<Step>>>>,
    pub(super) split: Option<usize>,
    pub(super) cut_at: Option<usize>,
}

impl Script {
    /// A stream with these steps, and status 200.
    pub fn steps(steps: impl IntoIterator<Item = Step>) -> Self {
        let headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"))]);
        Self {
            head: Some((StatusCode::OK, headers)),
            steps: steps.into_iter().collect(),
            live: None,
            split: None,
            cut_at: None,
        }
    }

    /// A well-formed answer of these pieces. The usage is 10 tokens in and one out for each piece.
    pub fn answer<T: Into<String>>(pieces: impl IntoIterator<Item = T>) -> Self {
        let mut script = Self::begun(pieces);
        let output = script.steps.len() - 1;
        script.steps.push(Step::Finish { input: 10, output: u64::try_from(output).unwrap_or(u64::MAX) });
        script
    }

    /// An answer that has begun with these pieces, to be continued with [`Script::then`].
    pub fn begun<T: Into<String>>(pieces: impl IntoIterator<Item = T>) -> Self {
        let deltas = pieces.into_iter().map(|piece| Step::Delta(piece.into()));
        Self::steps(std::iter::once(Step::Begin).chain(deltas))
    }

    /// A well-formed answer of `count` pieces with the time inside, one each `every`: for measuring delays.
    pub fn stamped(every: Duration, count: u64) -> Self {
        Self::steps([
            Step::Begin,
            Step::Stamps { every, count: Some(count), until: None },
            Step::Finish { input: 10, output: count },
        ])
    }

    /// An answer that the test drives step by step. It ends when the driver is dropped.
    pub fn live() -> (Self, Driver) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let script = Self { live: Some(Arc::new(Mutex::new(receiver))), ..Self::steps([]) };
        (script, Driver(sender))
    }

    /// A JSON body with this status.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::body(status, "application/json", body.to_string())
    }

    /// Any body with this status.
    pub fn body(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(content_type) {
            headers.insert(CONTENT_TYPE, value);
        }
        Self { head: Some((status, headers)), ..Self::steps([Step::Bytes(body.into())]) }
    }

    /// Closes the connection without any reply.
    pub fn no_reply() -> Self {
        Self { head: None, ..Self::steps([]) }
    }

    /// Appends a step.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Waits between all steps.
    #[must_use]
    pub fn paced(mut self, every: Duration) -> Self {
        self.steps = self.steps.into_iter().flat_map(|step| [step, Step::Wait(every)]).collect();
        self.steps.pop();
        self
    }

    /// Sets a header of the reply; names and values that are none are left out.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let (Some((_, headers)), Ok(name), Ok(value)) =
            (&mut self.head, HeaderName::try_from(name), HeaderValue::from_str(value))
        {
            headers.insert(name, value);
        }
        self
    }

    /// Sends everything in pieces of this many bytes, so also inside characters and line ends.
    #[must_use]
    pub fn split_every(mut self, bytes: usize) -> Self {
        self.split = Some(bytes.max(1));
        self
    }

    /// Breaks the connection after this many bytes of the body.
    #[must_use]
    pub fn cut_at(mut self, bytes: usize) -> Self {
        self.cut_at = Some(bytes);
        self
    }
}

/// Drives a live script. Dropping it ends the body cleanly.
#[derive(Debug)]
pub struct Driver(mpsc::UnboundedSender<Step>);

impl Driver {
    /// The next step. Without effect once the client has left.
    pub fn step(&self, step: Step) {
        // A client that left is in the journal.
        let _taken = self.0.send(step);
    }

    /// A piece of text.
    pub fn delta(&self, text: impl Into<String>) {
        self.step(Step::Delta(text.into()));
    }
}
