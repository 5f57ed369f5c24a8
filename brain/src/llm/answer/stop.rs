//! The request to stop an answer, shared by the consumer and the engine.

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::ledger::CallFinish;

/// The request to stop an answer.
#[derive(Debug, Default)]
pub(super) struct StopSignal {
    token: CancellationToken,
    finish: Mutex<Option<CallFinish>>,
}

impl StopSignal {
    /// Asks the answer to stop. `finish` is recorded for the current call; the first request decides.
    pub(super) fn stop(&self, finish: CallFinish) {
        self.finish.lock().get_or_insert(finish);
        self.token.cancel();
    }

    /// Cancelled once the answer should stop.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// How a call stopped by this signal is recorded.
    pub(super) fn finish(&self) -> CallFinish {
        self.finish.lock().unwrap_or(CallFinish::Stopped)
    }
}
