//! The brain: `chatbox-brain [--config FILE]`, and the commands `migrate`, `usage --user ID`, `check-config`.

use std::path::PathBuf;
use std::process::ExitCode;

use chatbox_brain::app;
use chatbox_brain::config::BrainConfig;
use chatbox_brain::ledger::Day;
use chatbox_shared::{program, telemetry};
use clap::{Parser, Subcommand};

/// The conversation service of chatbox.
#[derive(Debug, Parser)]
#[command(name = "chatbox-brain", version)]
struct Arguments {
    /// The settings file (TOML). Default: the file that CHATBOX_CONFIG names.
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
    let Arguments { config: file, command } = Arguments::parse();
    program::start(file.clone().as_deref(), |config| run(config, file, command))
}

#[tokio::main]
async fn run(config: BrainConfig, file: Option<PathBuf>, command: Option<Command>) -> anyhow::Result<bool> {
    if let Some(Command::CheckConfig) = command {
        program::print("the settings are valid");
        return Ok(true);
    }
    telemetry::init(&config.log)?;
    match command {
        Some(Command::Migrate) => app::migrate(config).await,
        Some(Command::Usage { user, from }) => app::usage(config, user, from, program::print).await,
        _ => app::run(config, file).await,
    }
}

fn day(text: &str) -> Result<Day, String> {
    Day::parse(text).ok_or_else(|| "must be a day such as 2026-11-24".to_owned())
}
