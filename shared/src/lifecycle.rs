//! The shutdown of a process: a soft token (drain: accept no new work), a hard token (stop now), and a tracker that waits for
//! every task. The first signal starts the drain, a second one stops.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs tasks and tells them when to end. Cheap to clone; all clones are one lifecycle.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    drain: CancellationToken,
    stop: CancellationToken,
    failed: CancellationToken,
    tasks: TaskTracker,
}

impl Lifecycle {
    /// A new lifecycle, running.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process should finish its work and accept no more.
    pub fn draining(&self) -> &CancellationToken {
        &self.drain
    }

    /// Cancelled when the process should end at once.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a task that [`Lifecycle::shut_down`] waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.tasks.spawn(task));
    }

    /// Runs a task that the process needs. If it ends or panics before the drain, the process drains and exits with a failure.
    pub fn critical<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = Guard { name, lifecycle: self.clone() };
        self.spawn(async move {
            task.await;
            drop(guard);
        });
    }

    /// Starts the drain.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Waits for SIGTERM or SIGINT and starts the drain; a second signal stops at once.
    ///
    /// # Errors
    /// Where the signal handlers cannot be installed.
    pub fn drain_on_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let lifecycle = self.clone();
        // Not tracked, because it waits for a second signal until the process ends.
        #[expect(clippy::disallowed_methods, reason = "the signal listener must outlive the drain that it starts")]
        let _listener = tokio::spawn(async move {
            for token in [&lifecycle.drain, &lifecycle.stop] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!(again = token == &lifecycle.stop, "signal received, shutting down");
                token.cancel();
            }
        });
        Ok(())
    }

    /// Waits for the drain to begin, then for every task, at most `grace`. Then cancels the hard token; tasks get one more
    /// second. Returns false if a critical task ended before the drain.
    pub async fn shut_down(&self, grace: Duration) -> bool {
        self.drain.cancelled().await;
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(grace) => tracing::warn!(?grace, "tasks still running after the grace period"),
        }
        self.stop.cancel();
        if tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "tasks did not end");
        }
        !self.failed.is_cancelled()
    }
}

/// Dropped when a critical task ends.
struct Guard {
    name: &'static str,
    lifecycle: Lifecycle,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.lifecycle.drain.is_cancelled() {
            tracing::error!(task = self.name, "a critical task has ended; shutting down");
            self.lifecycle.failed.cancel();
            self.lifecycle.drain.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_tasks() {
        let lifecycle = Lifecycle::new();
        let done = CancellationToken::new();
        lifecycle.spawn({
            let (drain, done) = (lifecycle.draining().clone(), done.clone());
            async move {
                drain.cancelled().await;
                done.cancel();
            }
        });
        lifecycle.drain();
        assert!(lifecycle.shut_down(Duration::from_secs(5)).await);
        assert!(done.is_cancelled());
    }

    #[tokio::test]
    async fn a_critical_task_that_ends_fails_the_process() {
        let lifecycle = Lifecycle::new();
        lifecycle.critical("test", async {});
        assert!(!lifecycle.shut_down(Duration::from_secs(5)).await);
    }
}
