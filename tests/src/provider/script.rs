//! A script: what the fake provider does with one request. It has a head, steps, and the way in which their bytes are sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::sync::{Mutex, mpsc};

use super::dialect::Dialect;
use super::fault::{Fault, Retry};
use super::format::SseFormat;
use super::step::Step;

/// The plan for one request.
#[derive(Debug, Clone)]
pub struct Script {
    /// What the journal calls it.
    pub(super) name: String,
    /// The protocol of the script, if it is for one only.
    pub(super) only: Option<Dialect>,
    pub(super) head: Head,
    /// The wait before the head.
    pub(super) head_after: Duration,
    pub(super) headers: HeaderMap,
    pub(super) retry: Retry,
    pub(super) steps: Vec<Step>,
    /// Further steps, which the test sends while the script is played.
    pub(super) live: Option<Arc<Mutex<mpsc::UnboundedReceiver<Step>>>>,
    pub(super) format: SseFormat,
    pub(super) split: Option<usize>,
    pub(super) break_at: Option<(usize, Break)>,
    pub(super) gzip: bool,
    pub(super) close_delimited: bool,
    pub(super) ignores_stop: bool,
}

/// The head of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// A reply with this status.
    Reply(StatusCode),
    /// The connection is closed without a reply.
    Close,
    /// The connection is reset without a reply.
    Reset,
    /// Nothing, until the client leaves.
    Stall,
}

/// How a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Break {
    Close,
    Reset,
}

impl Script {
    /// A stream with these steps, and status 200.
    pub fn steps(steps: impl IntoIterator<Item = Step>) -> Self {
        let stream = HeaderValue::from_static("text/event-stream; charset=utf-8");
        Self {
            name: String::new(),
            only: None,
            head: Head::Reply(StatusCode::OK),
            head_after: Duration::ZERO,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, stream)]),
            retry: Retry::default(),
            steps: steps.into_iter().collect(),
            live: None,
            format: SseFormat::default(),
            split: None,
            break_at: None,
            gzip: false,
            close_delimited: false,
            ignores_stop: false,
        }
    }

    /// A well-formed answer of these pieces. The usage is 10 tokens in and one out for each piece.
    pub fn answer<T: Into<String>>(pieces: impl IntoIterator<Item = T>) -> Self {
        let mut script = Self::begun(pieces);
        let output = script.steps.len() - 1;
        script.steps.push(Step::Finish { input: 10, output: u64::try_from(output).unwrap_or(u64::MAX) });
        script
    }

    /// An answer that has begun with these pieces, to be continued with [`Script::then`]. As it is, it ends without a
    /// terminator.
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
        Self::steps([Step::Bytes(body.into())]).with_status(status).content_type(Some(content_type))
    }

    /// A refusal in the protocol of the request. Its status is that of the fault, or 500.
    pub fn refuse(fault: Fault) -> Self {
        let status = fault.status.unwrap_or(500);
        let fault = Fault { status: Some(status), ..fault };
        Self::steps([Step::Refusal(fault)]).with_status(status).content_type(Some("application/json"))
    }

    /// A whole reply in JSON in the protocol of the request, although a stream was requested.
    pub fn whole(text: impl Into<String>) -> Self {
        Self::steps([Step::Whole(text.into())]).content_type(Some("application/json"))
    }

    /// Closes the connection without any reply.
    pub fn no_reply() -> Self {
        Self { head: Head::Close, ..Self::steps([]) }
    }

    /// Resets the connection without any reply.
    pub fn reset() -> Self {
        Self { head: Head::Reset, ..Self::steps([]) }
    }

    /// Never replies.
    pub fn silent() -> Self {
        Self { head: Head::Stall, ..Self::steps([]) }
    }

    /// Names it, for the journal.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Requests in another protocol are refused.
    #[must_use]
    pub fn only(mut self, dialect: Dialect) -> Self {
        self.only = Some(dialect);
        self
    }

    /// Sets the status; one that is none becomes 500.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.head = Head::Reply(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        self
    }

    /// Replies, with status 200 unless it has another.
    pub(super) fn replying(self) -> Self {
        if let Head::Reply(_) = self.head { self } else { self.with_status(200) }
    }

    /// Waits before the head.
    #[must_use]
    pub fn head_after(mut self, time: Duration) -> Self {
        self.head_after = time;
        self
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
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Sets the content type; `None` leaves it out.
    #[must_use]
    pub fn content_type(mut self, value: Option<&str>) -> Self {
        self.headers.remove(CONTENT_TYPE);
        match value {
            Some(value) => self.header(CONTENT_TYPE.as_str(), value),
            None => self,
        }
    }

    /// Sets the retry headers.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Encodes the stream in another SSE format.
    #[must_use]
    pub fn format(mut self, format: SseFormat) -> Self {
        self.format = format;
        self
    }

    /// Sends everything in pieces of this many bytes, which may cut characters and line ends.
    #[must_use]
    pub fn split_every(mut self, bytes: usize) -> Self {
        self.split = Some(bytes.max(1));
        self
    }

    /// Breaks the connection after this many bytes of the body.
    #[must_use]
    pub fn cut_at(mut self, bytes: usize) -> Self {
        self.break_at = Some((bytes, Break::Close));
        self
    }

    /// Resets the connection after this many bytes of the body.
    #[must_use]
    pub fn reset_at(mut self, bytes: usize) -> Self {
        self.break_at = Some((bytes, Break::Reset));
        self
    }

    /// Compresses the body, whether or not the client accepts that. [`super::Sent`] does not record its contents.
    #[must_use]
    pub fn gzip(mut self) -> Self {
        self.gzip = true;
        self.header(CONTENT_ENCODING.as_str(), "gzip")
    }

    /// Answers in HTTP/1.0: the body ends where the connection does, so that a break looks like an end.
    #[must_use]
    pub fn close_delimited(mut self) -> Self {
        self.close_delimited = true;
        self
    }

    /// Goes on although Dify's stop call came.
    #[must_use]
    pub fn ignoring_stops(mut self) -> Self {
        self.ignores_stop = true;
        self
    }
}

/// Drives a live script. Dropping it ends the body cleanly.
#[derive(Debug)]
pub struct Driver(mpsc::UnboundedSender<Step>);

impl Driver {
    /// The next step. Without effect once the client has left.
    pub fn step(&self, step: Step) {
        // The journal records a client that left.
        let _taken = self.0.send(step);
    }

    /// A piece of text.
    pub fn delta(&self, text: impl Into<String>) {
        self.step(Step::Delta(text.into()));
    }
}
