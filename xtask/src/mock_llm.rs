//! `cargo xtask mock-llm`: builds the fake provider and replaces this process with it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::project::{cargo, programs, run as execute};

/// The name of the program and of the command.
const PROGRAM: &str = "mock-llm";

/// Passed on unchanged.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Arguments of the program, such as --port 8089 or --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Returns only if the program cannot be built or started. Otherwise the program takes the place of this process: it gets
/// the signals, and its exit code is that of the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    execute(cargo().args(["build", "--quiet", "--locked", "--package", "chatbox-tests", "--bin", PROGRAM]))?;
    match start(Command::new(programs(false)?.join(PROGRAM)).args(&arguments.rest))? {}
}

fn start(command: &mut Command) -> Result<Infallible> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named() {
        let error = format!("{:#}", start(&mut Command::new("/no/such/mock-llm")).unwrap_err());
        assert!(error.contains("/no/such/mock-llm"), "{error}");
    }
}
