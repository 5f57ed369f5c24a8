//! Starting and stopping a process: a soft token (drain: take no new work), a hard token (stop now), and a tracker that
//! waits for every task. A second signal turns a drain into a stop.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Hands out tasks and tells them when to end. Cheap to clone; all clones are one lifecycle.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    drain: CancellationToken,
    stop: CancellationToken,
    failed: CancellationToken,
    tasks: TaskTracker,
}

impl Lifecycle {
    /// A lifecycle of its own, running.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process should finish what it has and take nothing new.
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

    /// Runs a task the process cannot live without: if it ends or panics before the drain, the process drains and
    /// reports failure, instead of going on with half of itself.
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
        // Not tracked: it waits for a second signal until the process ends.
        #[expect(clippy::disallowed_methods, reason = "the listener for signals must outlive the drain it starts")]
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

    /// Waits for the drain to begin and then for every task, `grace` at most; after that the hard token is cancelled
    /// and the tasks have one second more. Returns whether the process may call this a clean end.
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
            tracing::warn!(tasks = self.tasks.len(), "tasks left behind");
        }
        !self.failed.is_cancelled()
    }
}

/// Lives as long as a critical task.
struct Guard {
    name: &'static str,
    lifecycle: Lifecycle,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.lifecycle.drain.is_cancelled() {
            tracing::error!(task = self.name, "a task this process needs has ended; shutting down");
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
