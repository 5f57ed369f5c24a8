//! The load generator: starts a stack of its own and prints what it measured.
//!
//! `cargo build --release --workspace`, then `cargo run --release -p chatbox-tests --bin load -- connections`.

use std::time::Duration;

use anyhow::Result;
use chatbox_tests::load::{acks, connections, deltas};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Measures chatbox over its real processes")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Resident memory per idle connection with one open session.
    Connections {
        /// How many connections.
        #[arg(long, default_value_t = 10_000)]
        count: usize,
    },
    /// The time a delta spends between provider and client.
    Deltas {
        /// Answers at once.
        #[arg(long, default_value_t = 100)]
        streams: usize,
        /// Deltas per second of each answer.
        #[arg(long, default_value_t = 25)]
        rate: u32,
        /// How long the answers last.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// Durable acknowledgements per second, beside the bare database driver. Needs a mongod.
    Acks {
        /// Concurrent senders, one run each.
        #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
        senders: Vec<usize>,
        /// Length of each run.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the report is what this program is for")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Thousands of sockets, here and in the child processes, which inherit the limit.
    let files = rlimit::increase_nofile_limit(u64::MAX)?;
    let report = match arguments.what {
        What::Connections { count } => connections::measure(count).await?,
        What::Deltas { streams, rate, seconds } => {
            deltas::measure(deltas::Plan { streams, rate, time: Duration::from_secs(seconds) }).await?
        }
        What::Acks { senders, seconds } => acks::measure(&senders, Duration::from_secs(seconds)).await?,
    };
    let line: Vec<String> = std::env::args().skip(1).collect();
    println!("load {}   (open files allowed: {files})\n{report}", line.join(" "));
    Ok(())
}
