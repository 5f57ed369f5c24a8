//! The journal of the fake provider: the requests, what was sent in reply, and how each answer ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use http::request::Parts;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Notify;

use super::step::Usage;

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    /// When its body was read.
    pub at: Instant,
    /// The client's port: requests with the same one came over one connection.
    pub client_port: u16,
    /// GET or POST.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// The query, empty where there is none.
    pub query: String,
    /// By lower-case name; of several with one name the last.
    pub headers: BTreeMap<String, String>,
    /// The JSON, null where it was none. Of an upload: `user`, and `file` with `name`, `size`, `mime_type`.
    pub body: Value,
    /// Bytes of the answer's body handed to the connection.
    pub bytes_sent: usize,
    /// How and when the answer ended; `None` while it runs.
    pub end: Option<(Instant, End)>,
    /// The name of the script or preset, or where it came from: `script`, `always`, `random/cut_mid`, `default` …
    pub script: String,
    /// The number of a random choice.
    pub random: Option<u64>,
    /// What was sent.
    pub sent: Sent,
}

/// What was handed to the connection, as a client that reads everything has read it. Whether a client that left had read
/// it is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// The status; 0 where no head was sent.
    pub status: u16,
    /// The text: all deltas whose events are whole, or what replaced them. The first 8 MiB.
    pub text: String,
    /// The last usage sent. The placeholder in Anthropic's `message_start` does not count.
    pub usage: Option<Usage>,
    /// The answer has ended as its protocol says, terminator included.
    pub finished: bool,
    /// An error was sent within the stream.
    pub fault: bool,
    /// The usage in Anthropic's `message_start`.
    #[serde(skip)]
    pub(super) begun: Option<Usage>,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The script was played to its last byte.
    Finished,
    /// The script broke the connection: it closed, reset or half closed it.
    Cut,
    /// The client went away.
    ClientClosed,
}

impl Call {
    /// Is this a request for an answer, not a stop call or a question about the app?
    pub fn is_chat(&self) -> bool {
        ["/chat/completions", "/messages", "/chat-messages"].iter().any(|end| self.path.ends_with(end))
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<End> {
        self.end.map(|(_, end)| end)
    }

    /// The client's own id of this request: `x-client-request-id`.
    pub fn request_id(&self) -> Option<&str> {
        self.headers.get("x-client-request-id").map(String::as_str)
    }
}

/// All requests, oldest first.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    start: Instant,
    pages: Arc<Mutex<Pages>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Pages {
    calls: Vec<Call>,
    /// How many requests came before the first of these: numbers are never used again.
    before: usize,
}

impl Pages {
    fn call(&mut self, number: usize) -> Option<&mut Call> {
        self.calls.get_mut(number.checked_sub(self.before)?)
    }
}

impl Journal {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), pages: Arc::default(), changed: Arc::default() }
    }

    pub(super) fn record(&self, head: &Parts, body: &Value, client_port: u16) -> Ending {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let call = Call {
            at: Instant::now(),
            client_port,
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: body.clone(),
            bytes_sent: 0,
            end: None,
            script: String::new(),
            random: None,
            sent: Sent::default(),
        };
        let mut pages = self.pages.lock();
        pages.calls.push(call);
        let number = pages.before + pages.calls.len() - 1;
        drop(pages);
        self.changed.notify_waiters();
        Ending { journal: self.clone(), number, told: false }
    }

    /// When the fake provider was started. The times in its JSON count from here.
    pub(super) fn start(&self) -> Instant {
        self.start
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.pages.lock().calls.clone()
    }

    /// The calls, and the number of the first.
    pub(super) fn numbered(&self) -> (usize, Vec<Call>) {
        let pages = self.pages.lock();
        (pages.before, pages.calls.clone())
    }

    /// Forgets all requests. Answers that run go on; their ends are not recorded.
    pub(super) fn clear(&self) {
        let mut pages = self.pages.lock();
        pages.before += pages.calls.len();
        pages.calls.clear();
    }

    pub(super) async fn wait_until(
        &self,
        done: impl Fn(&[Call]) -> bool,
        limit: Duration,
    ) -> anyhow::Result<Vec<Call>> {
        let waiting = async {
            loop {
                // Subscribe before looking, so that no change is missed in between.
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let calls = self.calls();
                if done(&calls) {
                    return calls;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(limit, waiting).await {
            Ok(calls) => Ok(calls),
            Err(_) => bail!("the journal did not become as expected within {limit:?}: {:#?}", self.calls()),
        }
    }
}

/// Records the end of one request. Dropped without [`Ending::tell`], it records that the client closed.
#[derive(Debug)]
pub(super) struct Ending {
    journal: Journal,
    number: usize,
    told: bool,
}

impl Ending {
    /// The number of this request, from 0.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Changes the request's entry, unless the journal was cleared.
    pub(super) fn note<T>(&self, write: impl FnOnce(&mut Call) -> T) -> Option<T> {
        self.journal.pages.lock().call(self.number).map(write)
    }

    pub(super) fn tell(&mut self, end: End) {
        if !std::mem::replace(&mut self.told, true) {
            self.note(|call| call.end = Some((Instant::now(), end)));
            self.journal.changed.notify_waiters();
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tell(End::ClientClosed);
    }
}
