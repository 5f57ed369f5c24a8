//! What the machine itself takes: the same number of timed texts per second over plain loopback sockets, with nothing
//! between writer and reader.

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::report::Latencies;
use crate::provider::stamp;

/// Latencies of `streams` sockets with `rate` texts per second each, over `time`.
///
/// # Errors
/// A socket failed.
pub async fn measure(streams: usize, rate: u32, time: Duration) -> Result<Latencies> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut writers = JoinSet::new();
    let mut readers: JoinSet<Result<Latencies>> = JoinSet::new();
    for index in 0..streams {
        let mut reader = TcpStream::connect(address).await?;
        let (mut writer, _) = listener.accept().await?;
        writer.set_nodelay(true)?;
        let period = Duration::from_secs(1) / rate;
        let first = Instant::now() + period * u32::try_from(index)? / u32::try_from(streams)?;
        writers.spawn(async move {
            let mut ticks = interval_at(first, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while ticks.tick().await < first + time {
                writer.write_all(stamp::now().as_bytes()).await?;
            }
            anyhow::Ok(())
        });
        readers.spawn(async move {
            let mut latencies = Latencies::default();
            let mut text = vec![0; stamp::now().len()];
            while reader.read_exact(&mut text).await.is_ok() {
                latencies.extend_from(stamp::ages(&String::from_utf8_lossy(&text)));
            }
            Ok(latencies)
        });
    }
    let mut all = Latencies::default();
    while let Some(latencies) = readers.join_next().await {
        all.extend(latencies??);
    }
    Ok(all)
}
