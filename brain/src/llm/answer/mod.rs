//! One answer, from the first model asked to the end: what it says comes piece by piece, whichever model says it.
//!
//! [`Answering`] is the consumer's side. The work itself is a future that runs whenever the consumer asks for the next
//! piece ([`engine`]): it tries a model as often as its policy says, then the models it falls back to, and makes each call
//! with its limits ([`call`]). The future is never dropped between two pieces, so whatever it waits for is waited for once.

mod call;
mod engine;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::ErrorCode;
use chatbox_shared::ids::SessionId;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::TokenUsage;
use super::catalog::Model;
use super::conversation::Conversation;
use super::meter::Meter;
use crate::ledger::CallFinish;
use crate::session::entry::FinishReason;

/// Pieces that may wait for the consumer. More would be text of a provider that is faster than the store and the link.
const WAITING: usize = 32;

/// What is asked.
pub struct Ask {
    /// For the log.
    pub session: SessionId,
    /// Whose place in an endpoint's queue it takes.
    pub user: String,
    /// The model, then those it falls back to, in order.
    pub models: Vec<Arc<Model>>,
    /// What the prompts are made of.
    pub conversation: Arc<Conversation>,
    /// Keeps account of the calls.
    pub meter: Arc<dyn Meter>,
}

/// A piece of an answer.
pub enum Piece {
    /// This model speaks from here on. What another one said before is void.
    Model(Arc<Model>),
    /// Text to append.
    Delta(String),
    /// Other text in place of all so far.
    Replace(String),
    /// The provider's id of the conversation.
    Conversation(String),
    /// The end. Nothing follows.
    End(End),
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub outcome: Outcome,
    /// What the call used whose text was handed out last; `None` where no call was made.
    pub usage: Option<TokenUsage>,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The model was done, or was cut for this reason.
    Finished(FinishReason),
    /// [`Answering::stop`] was called.
    Stopped,
    /// No model could answer.
    Failed(Fault),
}

/// Why there is no answer, as a client may know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The kind.
    pub code: ErrorCode,
    /// When it passes, where that is known.
    pub retry_at: Option<Timestamp>,
}

impl From<ErrorCode> for Fault {
    fn from(code: ErrorCode) -> Self {
        Self { code, retry_at: None }
    }
}

/// An answer under way.
pub struct Answering {
    pieces: mpsc::Receiver<Piece>,
    /// `None` once it is done.
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    stop: Arc<Stop>,
}

impl Answering {
    /// Begins. Nothing happens before the first [`Answering::next`].
    pub fn start(ask: Ask) -> Self {
        let (sender, pieces) = mpsc::channel(WAITING);
        let stop = Arc::new(Stop::default());
        let work = engine::Engine::new(ask, sender, Arc::clone(&stop)).run();
        Self { pieces, work: Some(Box::pin(work)), stop }
    }

    /// The next piece; `None` after the end. The future may be dropped and asked for again.
    pub async fn next(&mut self) -> Option<Piece> {
        while let Some(work) = &mut self.work {
            tokio::select! {
                biased;
                piece = self.pieces.recv() => return piece,
                () = work => self.work = None,
            }
        }
        self.pieces.recv().await
    }

    /// Asks it to end, as what the current call is then recorded. Pieces handed out before may still come, then the end.
    pub fn stop(&self, finish: CallFinish) {
        self.stop.how.lock().get_or_insert(finish);
        self.stop.token.cancel();
    }

    /// Brings to an end what is left to do once nobody wants more pieces: the provider is told to stop, the call recorded.
    pub async fn settle(mut self) {
        self.stop(CallFinish::Stopped);
        while self.next().await.is_some() {}
    }
}

/// The wish that an answer should end.
#[derive(Debug, Default)]
struct Stop {
    token: CancellationToken,
    how: Mutex<Option<CallFinish>>,
}

impl Stop {
    fn finish(&self) -> CallFinish {
        self.how.lock().unwrap_or(CallFinish::Stopped)
    }
}
