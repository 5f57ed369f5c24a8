//! One answer: calls of the selected model and of its fallbacks until one of them has answered, as one stream of
//! [`AnswerEvent`]s.
//!
//! [`Answering`] is the consumer's side. The [`engine`] retries a model as its policy allows and then tries the fallback
//! models; [`call`] makes one call within its time limits. The engine is a future that runs while the consumer waits for
//! the next event. It is kept between two events, so a wait that has begun is never begun again.

mod call;
mod engine;
mod event;
mod stop;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use self::stop::StopSignal;
use crate::ledger::CallFinish;

pub use event::{AnswerEnd, AnswerError, AnswerEvent, AnswerOutcome, AnswerRequest};

/// Events that may wait for the consumer. The bound slows down a provider that is faster than the store and the link.
const WAITING: usize = 32;

/// An answer under way.
pub struct Answering {
    events: mpsc::Receiver<AnswerEvent>,
    /// `None` once the engine has finished.
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    stop: Arc<StopSignal>,
}

impl Answering {
    /// Creates the answer. No work is done before the first [`Answering::next`].
    pub fn start(ask: AnswerRequest) -> Self {
        let (sender, events) = mpsc::channel(WAITING);
        let stop = Arc::new(StopSignal::default());
        let work = engine::Engine::new(ask, sender, Arc::clone(&stop)).run();
        Self { events, work: Some(Box::pin(work)), stop }
    }

    /// The next event; `None` after the end. Cancel safe.
    pub async fn next(&mut self) -> Option<AnswerEvent> {
        while let Some(work) = &mut self.work {
            tokio::select! {
                biased;
                event = self.events.recv() => return event,
                () = work => self.work = None,
            }
        }
        self.events.recv().await
    }

    /// Asks the answer to stop; the current call is recorded with `finish`. Events emitted before may still arrive,
    /// then the end.
    pub fn stop(&self, finish: CallFinish) {
        self.stop.stop(finish);
    }

    /// Stops the answer and waits until the provider has been told and the call is recorded. For a consumer that wants
    /// no more events.
    pub async fn settle(mut self) {
        self.stop(CallFinish::Stopped);
        while self.next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests;
