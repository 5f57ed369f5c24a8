//! The project's own commands: `cargo xtask dev | chat | mock-llm | rooms | test`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are commands for a terminal: their output is text"
)]

mod chat;
mod dev;
mod mock_llm;
mod test;
mod sabotage;
mod rooms;
mod unused;
mod deny;
mod fetch;
mod runner;
mod project;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// chatbox's development commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build and start brain and gateway on this machine.
    Dev(dev::Arguments),
    /// Chat in the terminal with the services that `cargo xtask dev` started.
    Chat(chat::Arguments),
    /// Serve a fake model provider: the APIs of OpenAI, Anthropic and Dify on one port.
    MockLlm(mock_llm::Arguments),
    /// List imports that break the order of the modules: circles between files, and imports of a room listed above.
    Rooms(rooms::Arguments),
    /// Check formatting, lints and dependencies, and run every test.
    Test(test::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Chat(arguments) => chat::run(&arguments),
        Command::MockLlm(arguments) => mock_llm::run(&arguments),
        Command::Rooms(arguments) => rooms::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
