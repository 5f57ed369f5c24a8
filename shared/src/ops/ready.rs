//! Readiness: named checks that run at the same time, each with its own time limit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

type Run = dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

/// One dependency of the process.
pub(super) struct Check {
    name: &'static str,
    limit: Duration,
    run: Arc<Run>,
}

impl Check {
    pub(super) fn new<F, R>(name: &'static str, limit: Duration, run: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name, limit, run: Arc::new(move || Box::pin(run())) }
    }
}

/// The results of the checks.
pub(super) struct Report {
    pub(super) ready: bool,
    draining: bool,
    checks: Map<String, Value>,
}

impl Report {
    pub(super) fn to_json(&self) -> String {
        let mut body = json!({ "ready": self.ready, "checks": self.checks });
        if self.draining {
            body["draining"] = Value::Bool(true);
        }
        format!("{body}\n")
    }
}

/// Runs all checks at once. A draining process is not ready, whatever the results.
pub(super) async fn run(checks: &[Check], draining: bool) -> Report {
    let mut running = JoinSet::new();
    for check in checks {
        let (name, limit, run) = (check.name, check.limit, check.run.clone());
        running.spawn(async move {
            let begun = Instant::now();
            // A check runs in its own task, so that a panic counts as a failed check.
            let mut task = JoinSet::new();
            task.spawn(async move { run().await });
            let result = match tokio::time::timeout(limit, task.join_next()).await {
                Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
                Ok(Some(Ok(result))) => result,
                Ok(_) => Err("the check panicked".to_owned()),
            };
            (name, begun.elapsed(), result)
        });
    }
    let mut report = Report { ready: !draining, draining, checks: Map::new() };
    while let Some(Ok((name, took, result))) = running.join_next().await {
        report.ready &= result.is_ok();
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let value = match result {
            Ok(()) => json!({ "ok": true, "ms": ms }),
            Err(reason) => json!({ "ok": false, "ms": ms, "reason": reason }),
        };
        report.checks.insert(name.to_owned(), value);
    }
    // Every check must have a result.
    report.ready &= report.checks.len() == checks.len();
    report
}
