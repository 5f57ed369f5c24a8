//! Bounded waiting. A test that hangs says nothing; one that names what did not happen in time does.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

/// How long anything may take unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How often [`eventually`] asks again where nothing tells it of a change.
const POLL: Duration = Duration::from_millis(20);

/// Waits for `future` at most [`PATIENCE`].
///
/// # Errors
/// The time passed; the text names `what`.
pub async fn within<T>(what: impl Display, future: impl Future<Output = T>) -> Result<T> {
    within_time(PATIENCE, what, future).await
}

/// Waits for `future` at most `patience`.
///
/// # Errors
/// The time passed; the text names `what`.
pub async fn within_time<T>(patience: Duration, what: impl Display, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(patience, future).await.with_context(|| format!("not within {patience:?}: {what}"))
}

/// Asks `probe` until it has an answer, at most [`PATIENCE`]. For states only a question can find out, such as an HTTP
/// status; everything that can be awaited is awaited instead.
///
/// # Errors
/// The time passed, with what `probe` said last.
pub async fn eventually<T, F>(what: impl Display, probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    eventually_within(PATIENCE, what, probe).await
}

/// As [`eventually`], with a patience of one's own.
///
/// # Errors
/// The time passed, with what `probe` said last.
pub async fn eventually_within<T, F>(patience: Duration, what: impl Display, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(last)) if Instant::now() + POLL >= deadline => {
                return Err(last).with_context(|| format!("not within {patience:?}: {what}"));
            }
            Ok(Err(_)) => tokio::time::sleep(POLL).await,
            Err(_) => bail!("not within {patience:?} (the question itself hung): {what}"),
        }
    }
}
