//! Bounded waiting: every error names what did not happen in time.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

/// The limit of a wait where a test sets no other one.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// The pause between two probes of [`eventually`].
const POLL: Duration = Duration::from_millis(20);

/// The bound of a test for a promised time: half as much again, for the noise of a busy machine.
pub fn with_noise(promised: Duration) -> Duration {
    promised * 3 / 2
}

/// Waits for `future` at most [`TIMEOUT`].
///
/// # Errors
/// The time passed; the text names `what`.
pub async fn within<T>(what: impl Display, future: impl Future<Output = T>) -> Result<T> {
    within_time(TIMEOUT, what, future).await
}

/// Waits for `future` at most `timeout`.
///
/// # Errors
/// The time passed; the text names `what`.
pub async fn within_time<T>(timeout: Duration, what: impl Display, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(timeout, future).await.with_context(|| format!("not within {timeout:?}: {what}"))
}

/// Calls `probe` until it succeeds, at most for [`TIMEOUT`]. For states that can only be polled, such as an HTTP status;
/// everything else is awaited.
///
/// # Errors
/// The time passed. The text has the last error of `probe`.
pub async fn eventually<T, F>(what: impl Display, probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    eventually_within(TIMEOUT, what, probe).await
}

/// As [`eventually`], with a timeout of one's own.
///
/// # Errors
/// The time passed. The text has the last error of `probe`.
pub async fn eventually_within<T, F>(timeout: Duration, what: impl Display, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + timeout;
    loop {
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(last)) if Instant::now() + POLL >= deadline => {
                return Err(last).with_context(|| format!("not within {timeout:?}: {what}"));
            }
            Ok(Err(_)) => tokio::time::sleep(POLL).await,
            Err(_) => bail!("not within {timeout:?} (the question itself hung): {what}"),
        }
    }
}
