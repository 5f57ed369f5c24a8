//! The program: `chatbox-gateway [--config FILE]` serves, `chatbox-gateway check-config` only checks the settings.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use chatbox_gateway::app::App;
use chatbox_gateway::config::GatewaySettings;
use chatbox_shared::config::load;
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::telemetry;
use clap::{Parser, Subcommand};

/// Serves the WebSocket connections of chat clients and forwards their messages to the brains.
#[derive(Debug, Parser)]
#[command(name = "chatbox-gateway", version)]
struct Arguments {
    /// The settings file (TOML). Default: the file that CHATBOX_CONFIG names.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the settings, print every error, and exit.
    CheckConfig,
}

/// The exit code for invalid settings.
const INVALID_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings: GatewaySettings = match load(arguments.config.as_deref()) {
        Ok(settings) => settings,
        Err(errors) => {
            let _written = writeln!(std::io::stderr(), "{errors}");
            return ExitCode::from(INVALID_SETTINGS);
        }
    };
    if let Some(Command::CheckConfig) = arguments.command {
        let _written = writeln!(std::io::stdout(), "the settings are valid");
        return ExitCode::SUCCESS;
    }
    match run(settings) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _written = writeln!(std::io::stderr(), "{error:#}");
            tracing::error!(error = format!("{error:#}"), "cannot start");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(settings: GatewaySettings) -> anyhow::Result<bool> {
    telemetry::init(&settings.log)?;
    let lifecycle = Lifecycle::new();
    lifecycle.drain_on_signals()?;
    Ok(App::start(settings, lifecycle).await?.run().await)
}
