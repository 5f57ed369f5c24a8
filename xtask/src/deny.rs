//! Licences, banned crates, sources and advisories, by `deny.toml`: runs cargo-deny.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::fetch;
use crate::project::{root, run as execute};

/// Part of what cargo-deny prints where it cannot load the database of advisories.
const NO_DATABASE: &str = "failed to fetch advisory database";

/// Runs the checks. Advisories are skipped, with a note, where their database cannot be downloaded.
pub(crate) fn run() -> Result<()> {
    let program = fetch::cargo_deny().context("cargo-deny is needed to check licences and crates")?;
    execute(command(&program).args(["bans", "licenses", "sources"]))?;
    let output = command(&program).arg("advisories").output().context("cannot run cargo-deny")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains(NO_DATABASE) {
        println!("advisories: skipped, because their database (github.com/RustSec/advisory-db) cannot be downloaded");
        return Ok(());
    }
    eprint!("{text}");
    if !output.status.success() {
        bail!("a crate in Cargo.lock has an advisory, see above");
    }
    Ok(())
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null()).args(["--locked", "--log-level", "error", "check"]);
    command
}
