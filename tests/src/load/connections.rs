//! Resident memory of gateway and brain per idle authenticated connection with one open session.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::client::LeanClient;
use super::report::{Table, kb_each, mb};
use crate::harness::Stack;
use crate::harness::binaries::Profile;

/// Handshakes under way at once.
const AT_ONCE: usize = 64;
/// Sockets per local address: well below the number of ephemeral ports.
const PER_ADDRESS: usize = 10_000;
/// How long the processes idle before their memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// Resident bytes of both services.
#[derive(Debug, Clone, Copy)]
struct Resident {
    gateway: u64,
    brain: u64,
}

impl Resident {
    fn of(stack: &mut Stack) -> Result<Self> {
        Ok(Self { gateway: stack.gateway_process(0).resident_bytes()?, brain: stack.brain_process().resident_bytes()? })
    }

    fn since(self, before: Self) -> (i64, i64) {
        let grown = |now: u64, then: u64| i64::try_from(now).unwrap_or(i64::MAX) - i64::try_from(then).unwrap_or(0);
        (grown(self.gateway, before.gateway), grown(self.brain, before.brain))
    }
}

/// Measures with `count` connections and returns the report.
///
/// # Errors
/// The stack did not start, or a connection failed.
pub async fn measure(count: usize) -> Result<String> {
    let mut stack = Stack::builder()
        .profile(Profile::PreferRelease)
        .gateway("limits.handshakes_per_minute", 10_000_000)?
        .gateway("limits.handshake_burst", 1_000_000)?
        .gateway("limits.max_connections", i64::try_from(count)? + 100)?
        .gateway("log.filter", "warn,chatbox_gateway::app=info")?
        .start()
        .await?;
    // One client first, so that one-time allocations are not counted.
    LeanClient::open(stack.user("warm")?, &Uuid::new_v4().to_string()).await?;
    tokio::time::sleep(SETTLE).await;
    let empty = Resident::of(&mut stack)?;

    let began = Instant::now();
    let mut idle = connect_all(&stack, count).await?;
    let took = began.elapsed();
    tokio::time::sleep(SETTLE).await;
    let full = Resident::of(&mut stack)?;
    idle.shutdown().await;
    tokio::time::sleep(SETTLE).await;
    let after = Resident::of(&mut stack)?;

    let (gateway, brain) = full.since(empty);
    let mut table = Table::new(&["", "gateway", "brain", "both"]);
    let row = |name: &str, at: Resident| [name.to_owned(), mb(at.gateway), mb(at.brain), mb(at.gateway + at.brain)];
    table.row(row("MB with none", empty));
    table.row(row(&format!("MB with {count}"), full));
    table.row(row("MB after they left", after));
    table.row([
        "KB per connection".to_owned(),
        kb_each(gateway, count),
        kb_each(brain, count),
        kb_each(gateway + brain, count),
    ]);
    Ok(format!("{}{count} connections with one open session each, made in {:.1} s\n", table.text(), took.as_secs_f64()))
}

async fn connect_all(stack: &Stack, count: usize) -> Result<JoinSet<()>> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for index in 0..count {
        let last = u8::try_from(1 + index / PER_ADDRESS).context("too many connections for 127.0.0.x")?;
        let handshake = stack.user(&format!("user-{index}"))?.from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
        let places = Arc::clone(&places);
        opening.spawn(async move {
            let _place = places.acquire_owned().await?;
            LeanClient::open(handshake, &Uuid::new_v4().to_string()).await
        });
    }
    let mut idle = JoinSet::new();
    while let Some(opened) = opening.join_next().await {
        idle.spawn(opened??.idle());
    }
    Ok(idle)
}
