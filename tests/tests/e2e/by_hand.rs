//! `docs/by-hand.md`, carried out: every block of the page that begins with "```sh", in order, in one shell, with the
//! programs that this test belongs to. Blocks marked "```sh install" or "```sh aside" are left out. Other ports replace the
//! page's, so that tests can run at the same time.

use std::env;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::binaries::{Profile, find};
use tempfile::TempDir;
use tokio::process::Command;

use super::tools::{installed, search_path};

/// The ports of the page.
const PORTS: [&str; 10] = ["8080", "8081", "8082", "9081", "9082", "9091", "9092", "27017", "50051", "50052"];
/// Below the range from which the system takes ports for port 0, so that no other test gets one of them.
const PORT_RANGE: std::ops::Range<u16> = 20_000..30_000;
/// Seconds until the shell and everything it started are ended.
const LIMIT: &str = "90";
/// Ends what the page has started when a command fails, and when `timeout` ends the shell.
const PRELUDE: &str = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n";

/// The blocks of the page, as one script.
fn script(page: &str) -> String {
    let mut script = PRELUDE.to_owned();
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                script.push_str(line);
                script.push('\n');
            }
            _ => {}
        }
    }
    script
}

/// As many free ports as the page has.
fn free_ports() -> Result<Vec<u16>> {
    let begin = PORT_RANGE.start + u16::try_from(std::process::id() % 1000)? * 10;
    let candidates = (begin..PORT_RANGE.end).chain(PORT_RANGE.start..begin);
    let free: Vec<u16> =
        candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(PORTS.len()).collect();
    ensure!(free.len() == PORTS.len(), "no free ports");
    Ok(free)
}

/// Replaces the page's ports. By way of marks, so that no port put in is taken for one of the page's.
fn with_ports(mut script: String, ports: &[u16]) -> String {
    let mark = |index: usize| format!("<port {index}>");
    for (index, port) in PORTS.iter().enumerate() {
        script = script.replace(port, &mark(index));
    }
    for (index, port) in ports.iter().enumerate() {
        script = script.replace(&mark(index), &port.to_string());
    }
    script
}

/// The search path with all programs of the page; `None` if one is missing.
async fn programs() -> Result<Option<String>> {
    let services = find("brain", Profile::Same)?;
    let mongod = PathBuf::from(env::var_os("CHATBOX_MONGOD").context("CHATBOX_MONGOD is not set")?);
    let folder = |program: &Path| program.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let path = format!("{}:{}:{}:/usr/sbin", folder(&services), folder(&mongod), search_path());
    for probe in ["nginx -v", "openssl version", "curl --version", "python3 -c 'import pymongo, websockets'"] {
        if !installed(probe, &path).await {
            return Ok(None);
        }
    }
    Ok(Some(path))
}

#[tokio::test]
async fn the_page_works_command_by_command() -> Result<()> {
    let Some(path) = programs().await? else { return Ok(()) };
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(repository.join("docs/by-hand.md"))?;
    let script = with_ports(script(&page), &free_ports()?);
    let folder = TempDir::new()?;
    let mut shell = Command::new("timeout");
    shell.args([LIMIT, "bash", "-c", &script]).current_dir(folder.path());
    shell.env_clear().env("PATH", path).env("repository", repository).kill_on_drop(true).stdin(Stdio::null());
    let output = shell.output().await?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{text}", output.status);
    Ok(())
}
