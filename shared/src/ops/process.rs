//! Metrics of the process, read from `/proc` at each scrape. Where `/proc` is missing, they are left out.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::clock::Timestamp;

/// Adds `process_resident_memory_bytes`, `process_open_fds` and `process_start_time_seconds` under the registry's prefix.
/// `started` is the start time of this process.
pub fn register_process_metrics(registry: &mut Registry, started: Timestamp) {
    registry.register_collector(Box::new(ProcessMetrics { started }));
}

#[derive(Debug)]
struct ProcessMetrics {
    started: Timestamp,
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name: &str, help: &str, value: Option<i64>| -> fmt::Result {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)
        };
        gauge("process_resident_memory_bytes", "Resident memory of this process", resident_bytes())?;
        gauge("process_open_fds", "Open file descriptors of this process", open_fds())?;
        gauge("process_start_time_seconds", "Unix time of the start of this process", Some(self.started.0 / 1000))
    }
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kilobytes.trim().parse::<i64>().ok()?.checked_mul(1024)
}

fn open_fds() -> Option<i64> {
    // The folder that is being read is open too.
    i64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()?.checked_sub(1)
}
