//! What reached the double, and how each answer ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use http::request::Parts;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

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
    /// The JSON, null where it was none.
    pub body: Value,
    /// Bytes of the answer's body handed to the connection.
    pub bytes_sent: usize,
    /// How and when the answer ended; `None` while it runs. Only for chat requests.
    pub end: Option<(Instant, End)>,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As the script said, to its last byte.
    Finished,
    /// The script cut the connection.
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
}

/// All requests, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    calls: Arc<Mutex<Vec<Call>>>,
    changed: Arc<Notify>,
}

impl Journal {
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
        };
        let mut calls = self.calls.lock();
        calls.push(call);
        let index = calls.len() - 1;
        drop(calls);
        self.changed.notify_waiters();
        Ending { journal: self.clone(), index, told: false }
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    pub(super) async fn wait_until(
        &self,
        done: impl Fn(&[Call]) -> bool,
        limit: Duration,
    ) -> anyhow::Result<Vec<Call>> {
        let waiting = async {
            loop {
                // Listening begins before looking, so that no change falls in between.
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
            Err(_) => bail!("the provider double did not see what was waited for in {limit:?}: {:#?}", self.calls()),
        }
    }
}

/// Tells the journal how an answer ended. Dropped without a word, it was the client who closed.
#[derive(Debug)]
pub(super) struct Ending {
    journal: Journal,
    index: usize,
    told: bool,
}

impl Ending {
    /// The number of this request, from 0.
    pub(super) fn number(&self) -> usize {
        self.index
    }

    pub(super) fn sent(&self, bytes: usize) {
        if let Some(call) = self.journal.calls.lock().get_mut(self.index) {
            call.bytes_sent += bytes;
        }
    }

    pub(super) fn tell(&mut self, end: End) {
        if !std::mem::replace(&mut self.told, true) {
            if let Some(call) = self.journal.calls.lock().get_mut(self.index) {
                call.end = Some((Instant::now(), end));
            }
            self.journal.changed.notify_waiters();
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tell(End::ClientClosed);
    }
}
