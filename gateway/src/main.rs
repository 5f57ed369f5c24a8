//! The program: `chatbox-gateway [--config FILE]` serves, `chatbox-gateway check-config` only checks the settings.

use std::path::PathBuf;
use std::process::ExitCode;

use chatbox_gateway::app::App;
use chatbox_gateway::config::GatewaySettings;
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::{program, telemetry};
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
    /// Check the settings and print every error. Exits with code 0 if they are valid, else 2.
    CheckConfig,
}

fn main() -> ExitCode {
    let Arguments { config, command } = Arguments::parse();
    program::start(config.as_deref(), |settings| run(settings, command))
}

#[tokio::main]
async fn run(settings: GatewaySettings, command: Option<Command>) -> anyhow::Result<bool> {
    if let Some(Command::CheckConfig) = command {
        program::print("the settings are valid");
        return Ok(true);
    }
    telemetry::init(&settings.log)?;
    let lifecycle = Lifecycle::new();
    lifecycle.drain_on_signals()?;
    Ok(App::start(settings, lifecycle).await?.run().await)
}
