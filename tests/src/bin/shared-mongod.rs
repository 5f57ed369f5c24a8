//! Set-up script of nextest: starts one mongod for all tests of a run and names it in the tests' environment.
//!
//! nextest has no script for the end of a run. So the script leaves a copy of itself behind, which owns the server and
//! ends with it once nextest has ended.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chatbox_tests::mongod::{Mongod, PROGRAM, URI};
use clap::Parser;

/// Names the file to which a set-up script writes the variables of the tests.
const NEXTEST_ENV: &str = "NEXTEST_ENV";
/// How often the copy looks whether nextest still runs.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Parser)]
#[command(about = "Starts the mongod that the tests of one nextest run share")]
struct Arguments {
    /// Serve until the process with this id has ended.
    #[arg(long)]
    until_end_of: Option<u32>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Arguments::parse().until_end_of {
        Some(pid) => serve(pid).await,
        None => start_copy(),
    }
}

/// Starts the copy, waits for the connection string and hands it on.
fn start_copy() -> Result<()> {
    // Without a program the tests that need one say so themselves.
    if std::env::var_os(PROGRAM).is_none() || std::env::var_os(URI).is_some() {
        return Ok(());
    }
    let environment = std::env::var_os(NEXTEST_ENV).context("NEXTEST_ENV is not set: this is a script of nextest")?;
    let nextest = std::os::unix::process::parent_id();
    let mut copy = Command::new(std::env::current_exe()?)
        .args(["--until-end-of", &nextest.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Signals for nextest and its scripts must not end the copy before it has removed the server's folder.
        .process_group(0)
        .spawn()?;
    let mut uri = String::new();
    BufReader::new(copy.stdout.take().context("no pipe")?).read_line(&mut uri)?;
    ensure!(!uri.is_empty(), "mongod did not start");
    writeln!(File::options().append(true).open(environment)?, "{URI}={}", uri.trim_end())?;
    Ok(())
}

/// Runs the server until the other process has ended.
#[expect(clippy::print_stdout, reason = "the first line tells the script the connection string")]
async fn serve(pid: u32) -> Result<()> {
    let began = started_at(pid);
    let server = Mongod::start().await?;
    println!("{}", server.uri());
    while began.is_some() && started_at(pid) == began {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// When a process was started, in clock ticks since boot. Tells a process from a later one with the same id.
fn started_at(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}
