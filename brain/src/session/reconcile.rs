//! Background reading of the store, so that subscribers see what no event of this brain told them: what writes of unknown
//! outcome have left, and what other brains have appended.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::lifecycle::Lifecycle;

use super::catch_up::catch_up;
use super::live::Live;
use super::registry::Sessions;

/// How often sessions with a write of unknown outcome are read again.
const SETTLE_EVERY: Duration = Duration::from_millis(500);
/// How long one round over all followed sessions takes, unless [`LEAST_PAUSE`] makes it longer.
const ROUND: Duration = Duration::from_secs(10);
/// The least time between two reads of a round: at most 200 reads a second.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// Settles writes of unknown outcome, until the drain.
pub async fn settle_unknown_outcomes(sessions: Arc<Sessions>) {
    while !pause_or_drain(&sessions.lifecycle, SETTLE_EVERY).await {
        sessions.unknown_outcomes.settle(sessions.store.as_ref()).await;
    }
}

/// Reads each followed session from the store about once per [`ROUND`], until the drain. This finds what another brain has
/// appended even if no message between the brains arrives.
pub async fn reconcile(sessions: Arc<Sessions>) {
    loop {
        let followed: Vec<_> = sessions.all().into_iter().filter(|session| session.read(Live::is_followed)).collect();
        let pause = ROUND / u32::try_from(followed.len() + 1).unwrap_or(u32::MAX);
        for session in followed {
            if pause_or_drain(&sessions.lifecycle, pause.max(LEAST_PAUSE)).await {
                return;
            }
            if let Err(failure) = catch_up(sessions.store.as_ref(), &session).await {
                tracing::debug!(session = %session.id, %failure, "a session could not be reconciled with the store");
            }
        }
        if pause_or_drain(&sessions.lifecycle, pause).await {
            return;
        }
    }
}

/// Waits. `true`: the process drains.
async fn pause_or_drain(lifecycle: &Lifecycle, pause: Duration) -> bool {
    tokio::select! {
        () = lifecycle.draining().cancelled() => true,
        () = tokio::time::sleep(pause) => false,
    }
}
