//! How a service starts and ends: settings, exit code, error messages. Each `main.rs` owns its arguments and commands.

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Settings, load};

/// The exit code for invalid settings.
const INVALID_SETTINGS: u8 = 2;

/// Loads the settings from `file` and runs the program with them. `run` returns `false` if a critical task has failed.
///
/// Invalid settings are printed, with exit code 2. An error of `run` is printed and logged, because the log may not be set up
/// yet.
pub fn start<S: Settings, E: Display>(file: Option<&Path>, run: impl FnOnce(S) -> Result<bool, E>) -> ExitCode {
    let settings = match load(file) {
        Ok(settings) => settings,
        Err(errors) => {
            complain(&errors.to_string());
            return ExitCode::from(INVALID_SETTINGS);
        }
    };
    match run(settings) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let error = format!("{error:#}");
            complain(&error);
            tracing::error!(error, "the program failed");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line of a command's output. A closed pipe is no error.
pub fn print(line: &str) {
    let _written = writeln!(std::io::stdout(), "{line}");
}

fn complain(text: &str) {
    let _written = writeln!(std::io::stderr(), "{text}");
}
