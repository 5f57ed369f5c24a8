//! A service as a child process: its output, signals and end. It is killed when the test ends.

use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::waits::{TIMEOUT, within, within_time};

/// Names the deliberate fault of services that were built with the feature `sabotage`.
pub const SABOTAGE: &str = "CHATBOX_SABOTAGE";
/// How many log lines a failing test shows per process.
const TAIL: usize = 60;

/// A running (or ended) child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    output: Arc<Lines>,
    /// Copy the output; they end with it.
    readers: JoinSet<()>,
}

/// Everything a process wrote, line by line, with a signal for each new line and for the end.
#[derive(Debug)]
struct Lines {
    lines: Mutex<Vec<String>>,
    changed: watch::Sender<usize>,
}

/// Arguments and environment of a process.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// Arguments.
    pub args: Vec<String>,
    /// The whole environment, but for PATH.
    pub env: Vec<(String, String)>,
}

impl Launch {
    /// With these arguments and an empty environment.
    pub fn args<const N: usize>(args: [&str; N]) -> Self {
        Self { args: args.iter().map(ToString::to_string).collect(), env: Vec::new() }
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    fn command(&self, binary: &Path) -> Command {
        let mut command = Command::new(binary);
        // No variable of the test's own environment (proxies, settings) may reach the services.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("RUST_BACKTRACE", "1");
        // A test of the tests chooses the deliberate fault of sabotaged services; see `e2e/sabotage.rs`.
        command.envs(std::env::var_os(SABOTAGE).map(|name| (SABOTAGE, name)));
        command.args(&self.args).envs(self.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started or does not end in time.
pub async fn run(binary: &Path, launch: &Launch) -> Result<Output> {
    let what = format!("{} {:?}", binary.display(), launch.args);
    within(format!("the end of {what}"), launch.command(binary).output()).await?.with_context(|| what)
}

impl Process {
    /// Starts a process that goes on running.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(name: impl Into<String>, binary: &Path, launch: &Launch) -> Result<Self> {
        let name = name.into();
        let mut child =
            launch.command(binary).spawn().with_context(|| format!("cannot start {name} ({})", binary.display()))?;
        let output = Arc::new(Lines { lines: Mutex::new(Vec::new()), changed: watch::channel(0).0 });
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(keep(stdout, Arc::clone(&output)));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(keep(stderr, Arc::clone(&output)));
        }
        let pid = child.id().context("the process has no id")?;
        Ok(Self { name, child, pid, output, readers })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Everything it wrote so far, stdout and stderr.
    pub fn output(&self) -> String {
        self.output.lines.lock().join("\n")
    }

    /// The last lines it wrote, under a heading.
    pub fn tail(&self) -> String {
        let lines = self.output.lines.lock();
        let from = lines.len().saturating_sub(TAIL);
        format!("---- {} (pid {}), last lines of {}:\n{}", self.name, self.pid, lines.len(), lines[from..].join("\n"))
    }

    /// Waits for a log line from which `pick` returns something.
    ///
    /// # Errors
    /// None came in time, or the process ended before.
    pub async fn logged<T>(&mut self, what: &str, pick: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let mut changed = self.output.changed.subscribe();
        let mut looked = 0;
        let waiting = async {
            loop {
                let fresh: Vec<String> = {
                    let lines = self.output.lines.lock();
                    let fresh = lines[looked..].to_vec();
                    looked = lines.len();
                    fresh
                };
                let found =
                    fresh.iter().filter_map(|line| serde_json::from_str(line).ok()).find_map(|line| pick(&line));
                if let Some(found) = found {
                    return Ok(found);
                }
                tokio::select! {
                    more = changed.changed() => more.context("the log has ended")?,
                    status = self.child.wait() => bail!("the process ended with {}", status?),
                }
            }
        };
        let outcome = within(format!("log line of {}: {what}", self.name), waiting).await;
        outcome.and_then(|inner| inner).with_context(|| self.tail())
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill(&mut self) -> Result<()> {
        within(format!("the death of {}", self.name), self.child.kill()).await??;
        Ok(())
    }

    /// Asks it to end (SIGTERM), without waiting.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn terminate(&self) -> Result<()> {
        signal(self.pid, Signal::TERM)
    }

    /// Freezes it (SIGSTOP).
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn freeze(&self) -> Result<()> {
        signal(self.pid, Signal::STOP)
    }

    /// Lets a frozen process go on (SIGCONT).
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn thaw(&self) -> Result<()> {
        signal(self.pid, Signal::CONT)
    }

    /// Waits for its end and for the last line it wrote. Returns everything it wrote.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn drained(&mut self) -> Result<String> {
        self.ended().await?;
        let readers = std::mem::take(&mut self.readers);
        within(format!("the last output of {}", self.name), readers.join_all()).await?;
        Ok(self.output())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end in time (twice the usual timeout: a drain has its own limits).
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let wait = within_time(TIMEOUT * 2, format!("the end of {}", self.name), self.child.wait());
        let status = wait.await.and_then(|status| Ok(status?));
        status.with_context(|| self.tail())
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// The process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// CPU time used so far, user and system.
    ///
    /// # Errors
    /// The process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let after_name = stat.rsplit_once(')').context("no name in stat")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: u64 =
            fields.get(11).context("no utime")?.parse::<u64>()? + fields.get(12).context("no stime")?.parse::<u64>()?;
        // USER_HZ is 100 on all common Linux systems.
        Ok(Duration::from_millis(ticks * 10))
    }
}

/// Sends a signal to one process.
///
/// # Errors
/// The signal could not be sent.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("0 is no process id")?;
    kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to {pid:?}"))
}

async fn keep(stream: impl AsyncRead + Unpin, output: Arc<Lines>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let count = {
            let mut kept = output.lines.lock();
            kept.push(line);
            kept.len()
        };
        output.changed.send_replace(count);
    }
}
