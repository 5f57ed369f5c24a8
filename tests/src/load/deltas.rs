//! The time a delta spends between the provider's socket and the client's.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::client::LeanClient;
use super::floor;
use super::report::{Latencies, Table};
use crate::harness::binaries::Profile;
use crate::harness::connection::user_message;
use crate::harness::model::Model;
use crate::harness::{Dialect, Stack};
use crate::provider::{FakeProvider, Script, stamp};

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Answers at once, each on its own connection and in its own session.
    pub streams: usize,
    /// Deltas per second of each.
    pub rate: u32,
    /// How long the answers last.
    pub time: Duration,
}

/// Measures and returns the report.
///
/// # Errors
/// The stack did not start, or a stream failed.
pub async fn measure(plan: Plan) -> Result<String> {
    let provider = FakeProvider::start().await?;
    let period = Duration::from_secs(1) / plan.rate;
    provider.always(Script::stamped(period, plan.time.as_secs() * u64::from(plan.rate)));
    let mut stack = Stack::builder()
        .profile(Profile::PreferRelease)
        .model(Model::at("measured", Dialect::OpenAi, &provider.url()))
        .gateway("limits.handshakes_per_minute", 1_000_000)?
        .gateway("limits.handshake_burst", 1_000_000)?
        .start()
        .await?;
    let mut clients = Vec::new();
    for index in 0..plan.streams {
        let session = Uuid::new_v4().to_string();
        clients.push((LeanClient::open(stack.user(&format!("user-{index}"))?, &session).await?, session));
    }
    let cpu = [stack.gateway_process(0).cpu_time()?, stack.brain_process().cpu_time()?];
    let (mut through, elapsed) = stream_all(clients, plan).await?;
    let cpu = [stack.gateway_process(0).cpu_time()? - cpu[0], stack.brain_process().cpu_time()? - cpu[1]];
    let mut floor = floor::measure(plan.streams, plan.rate, plan.time.min(Duration::from_secs(10))).await?;

    let mut table = Table::new(&["", "deltas", "p50 ms", "p99 ms", "max ms"]);
    for (name, latencies) in [("provider to client", &mut through), ("bare loopback", &mut floor)] {
        table.row([name.to_owned(), latencies.count().to_string()].into_iter().chain(latencies.cells()));
    }
    Ok(format!(
        "{}{} streams x {} deltas/s for {:.1} s; CPU seconds: gateway {:.2}, brain {:.2}\n",
        table.text(),
        plan.streams,
        plan.rate,
        elapsed.as_secs_f64(),
        cpu[0].as_secs_f64(),
        cpu[1].as_secs_f64()
    ))
}

async fn stream_all(clients: Vec<(LeanClient, String)>, plan: Plan) -> Result<(Latencies, Duration)> {
    let began = Instant::now();
    let mut running: JoinSet<Result<Latencies>> = JoinSet::new();
    let (streams, period) = (u32::try_from(plan.streams)?, Duration::from_secs(1) / plan.rate);
    for (index, (mut client, session)) in clients.into_iter().enumerate() {
        // Each begins half a period and a bit after the one before, so that their deltas are spread evenly over a period.
        let index = u32::try_from(index)?;
        let wait = period / 2 * index + period * index / streams;
        running.spawn(async move {
            tokio::time::sleep_until(began + wait).await;
            client.send(user_message(&session, &Uuid::new_v4().to_string(), "go").to_string()).await?;
            let mut latencies = Latencies::default();
            loop {
                let text = client.next().await?;
                if let Some(delta) = text.split_once(r#""delta":""#).filter(|_| text.contains(r#""ai_delta""#)) {
                    let stamps = delta.1.split('"').next().context("no text")?;
                    latencies.extend_from(stamp::ages(stamps));
                } else if text.contains(r#""finish_reason""#) {
                    return Ok(latencies);
                } else if text.contains(r#""type":"error""#) || text.contains(r#""state":"failed""#) {
                    anyhow::bail!("the answer failed: {text}");
                }
            }
        });
    }
    let mut all = Latencies::default();
    while let Some(latencies) = running.join_next().await {
        all.extend(latencies??);
    }
    Ok((all, began.elapsed()))
}
