//! The test runner, and the programs that it needs.

use std::process::Command;

use anyhow::Result;

use crate::project::{cargo, run as execute};

/// End-to-end tests start the programs. Cargo does not know that, so they are built first.
pub(crate) fn build_programs() -> Result<()> {
    execute(cargo().args(["build", "--locked", "--workspace", "--bins"]))
}

/// The test runner.
#[derive(Clone, Copy)]
pub(crate) enum Runner {
    /// cargo-nextest: several tests at a time, each in its own process, with time limits.
    Nextest,
    /// Plain cargo, where nextest is not installed.
    Cargo,
}

impl Runner {
    pub(crate) fn find() -> Self {
        if cargo().args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success()) {
            return Self::Nextest;
        }
        println!("cargo-nextest is not installed: using `cargo test`, which is slower and has no time limits;");
        println!("install it with `cargo install cargo-nextest --locked`");
        Self::Cargo
    }

    pub(crate) fn command(self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        match self {
            Self::Nextest => command.args(["nextest", "run", "--locked"]),
            Self::Cargo => command.args(["test", "--locked"]),
        };
        command.args(arguments);
        command
    }
}
