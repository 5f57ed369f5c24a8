//! One of the two services as a child process.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// How many lines of its log are shown when a service ended by itself.
const TAIL_LINES: usize = 15;

/// A running service.
pub(super) struct Service {
    name: &'static str,
    child: Child,
    pid: u32,
    /// The file of its log lines. `None`: this terminal.
    log: Option<PathBuf>,
}

impl Service {
    /// Starts a program with its settings file and without the environment variables in `hidden`.
    pub(super) fn start(
        name: &'static str,
        program: &Path,
        config: &Path,
        hidden: &[&str],
        log: Option<PathBuf>,
    ) -> Result<Self> {
        let what = || format!("cannot start {name}");
        let mut command = std::process::Command::new(program);
        command.arg("--config").arg(config).stdin(Stdio::null());
        match &log {
            Some(path) => {
                let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
                command.stdout(file.try_clone().with_context(what)?).stderr(file);
            }
            None => {
                command.stdout(std::io::stderr()).stderr(std::io::stderr());
            }
        }
        // A process group for each service: Ctrl-C then reaches only the launcher, which stops the services in order. A
        // second signal would stop a service without its drain.
        command.process_group(0);
        for variable in hidden {
            command.env_remove(variable);
        }
        let child = Command::from(command).kill_on_drop(true).spawn().with_context(what)?;
        let pid = child.id().with_context(what)?;
        Ok(Self { name, child, pid, log })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the service ends by itself. Returns the error to report.
    pub(super) async fn ended(&mut self) -> Error {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        match &self.log {
            Some(path) => anyhow!("{} has ended ({how}); the end of {}:\n{}", self.name, path.display(), tail(path)),
            None => anyhow!("{} has ended ({how})", self.name),
        }
    }

    /// Sends SIGTERM and waits; kills the service after `limit`. Returns whether the service ended with success.
    pub(super) async fn stop(&mut self, limit: Duration) -> bool {
        if let Ok(Some(status)) = self.child.try_wait() {
            return status.success();
        }
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            eprintln!("note: cannot send SIGTERM to {}: {error}", self.name);
        }
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        match ended {
            Ok(Ok(status)) => self.report(status),
            Ok(Err(error)) => {
                eprintln!("note: {}: {error}", self.name);
                false
            }
            Err(_) => {
                eprintln!("note: {} did not end within {} s: killing it", self.name, limit.as_secs());
                if let Err(error) = self.child.kill().await {
                    eprintln!("note: cannot kill {}: {error}", self.name);
                }
                false
            }
        }
    }

    /// Reports a failure. Returns whether the status is a success.
    fn report(&self, status: ExitStatus) -> bool {
        if !status.success() {
            eprintln!("note: {} ended with {status}", self.name);
        }
        status.success()
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A service made of a shell script; `$2` is the settings file.
    fn script(folder: &Path, text: &str, hidden: &[&str]) -> Service {
        let program = folder.join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = folder.join("settings.toml");
        Service::start("brain", &program, &config, hidden, Some(folder.join("log"))).unwrap()
    }

    /// Waits for a line in the log.
    async fn logged(folder: &Path, line: &str) {
        let wait = async {
            while !std::fs::read_to_string(folder.join("log")).unwrap().contains(line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    }

    #[tokio::test]
    async fn the_error_of_an_ended_service_has_the_end_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut service = script(folder.path(), "seq 1 100; echo \"$@\"; exit 2", &[]);
        let text = service.ended().await.to_string();
        assert!(text.contains("brain has ended (exit status: 2)") && text.contains("\n100\n--config "), "{text}");
        assert!(text.ends_with("settings.toml") && !text.contains("\n80\n"), "{text}");
    }

    #[tokio::test]
    async fn a_service_gets_sigterm_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut service =
            script(folder.path(), "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done", &[]);
        logged(folder.path(), "up").await;
        assert!(service.stop(Duration::from_secs(10)).await);
        logged(folder.path(), "bye").await;
    }

    #[tokio::test]
    async fn a_service_that_does_not_end_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut service = script(folder.path(), "trap '' TERM; echo up; while :; do sleep 0.05; done", &[]);
        logged(folder.path(), "up").await;
        assert!(!service.stop(Duration::from_millis(100)).await);
    }

    #[tokio::test]
    async fn hidden_variables_do_not_reach_a_service() {
        let folder = tempfile::tempdir().unwrap();
        let mut service = script(folder.path(), "echo \"path=$PATH.\"", &["PATH"]);
        drop(service.ended().await);
        // Without a PATH, sh may set a default.
        let inherited = std::env::var("PATH").unwrap();
        assert!(!std::fs::read_to_string(folder.path().join("log")).unwrap().contains(&format!("path={inherited}.")));
    }
}
