//! `cargo xtask chat`: a small terminal client of the WebSocket protocol. What is typed is sent, answers stream in; a
//! lost connection is made again and nothing is lost or doubled.

mod client;
mod connection;
mod conversation;
mod command;
mod screen;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use uuid::Uuid;

use crate::dev::{ChatFile, default_path};

/// Where to connect, and as whom.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The gateway's address, such as ws://127.0.0.1:8080/chat/ws [default: what `cargo xtask dev` wrote]
    #[arg(long)]
    url: Option<String>,
    /// The token to show [default: the user token of `cargo xtask dev`]
    #[arg(long, env = "CHATBOX_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Use the admin token of `cargo xtask dev`
    #[arg(long, conflicts_with = "token")]
    admin: bool,
    /// Go on with this session [default: a new one]
    #[arg(long, value_name = "UUID")]
    session: Option<Uuid>,
    /// The data folder of `cargo xtask dev` [default: .chatbox in the project]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the input is no terminal: give up when nothing has come from the server for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
}

/// Chats until the input ends, `/quit`, or the server refuses.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (url, token) = match (&arguments.url, &arguments.token) {
        (Some(url), Some(token)) => (url.clone(), token.clone()),
        (url, token) => {
            let file = ChatFile::read(&arguments.data.clone().unwrap_or_else(default_path))?;
            let own = if arguments.admin { file.admin_token } else { file.user_token };
            (url.clone().unwrap_or(file.url), token.clone().unwrap_or(own))
        }
    };
    ensure!(url.starts_with("ws://"), "this client speaks ws:// only, and {url} is something else");
    let options = client::Options {
        url,
        token,
        session: arguments.session.unwrap_or_else(Uuid::new_v4),
        terminal: std::io::stdin().is_terminal(),
        patience: Duration::from_secs(arguments.wait),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let well = runtime.block_on(client::run(options, client::read_lines(), std::io::stdout()))?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
