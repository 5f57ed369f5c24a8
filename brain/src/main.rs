//! The brain: `chatbox-brain [--config FILE]`, and the commands `migrate`, `usage --user ID`, `check-config`.

use std::path::PathBuf;
use std::process::ExitCode;

use chatbox_brain::app;
use chatbox_brain::config::BrainConfig;
use chatbox_brain::ledger::Day;
use chatbox_shared::{config, telemetry};
use clap::{Parser, Subcommand};

/// The conversation service of chatbox.
#[derive(Debug, Parser)]
#[command(name = "chatbox-brain", version)]
struct Arguments {
    /// The settings file; see default.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create missing tables and indexes.
    Migrate,
    /// Print what a user has used on each day, as one line of JSON per day.
    Usage {
        /// The user's id: the `sub` of their tokens.
        #[arg(long)]
        user: String,
        /// The first day (UTC), such as 2026-11-24. Days without a call are left out.
        #[arg(long, value_parser = day, default_value = "1970-01-01")]
        from: Day,
    },
    /// Check the settings and print every error. Exits with code 0 if they are valid, else 2.
    CheckConfig,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match config::load::<BrainConfig>(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(errors) => return complain(&errors, 2),
    };
    if let Some(Command::CheckConfig) = arguments.command {
        print("the settings are valid");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = telemetry::init(&config.log) {
        return complain(&error, 2);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, 1),
    };
    let done = match arguments.command {
        Some(Command::Migrate) => runtime.block_on(app::migrate(config)),
        Some(Command::Usage { user, from }) => runtime.block_on(app::usage(config, user, from, print)),
        _ => runtime.block_on(app::run(config, arguments.config)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the brain cannot run");
            ExitCode::FAILURE
        }
    }
}

fn day(text: &str) -> Result<Day, String> {
    Day::parse(text).ok_or_else(|| "must be a day such as 2026-11-24".to_owned())
}

#[expect(clippy::print_stderr, reason = "the log is not set up yet")]
fn complain(what: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("{what}");
    ExitCode::from(code)
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn print(what: &str) {
    println!("{what}");
}
