//! `cargo xtask chat`: a small terminal client of the WebSocket protocol. It sends typed lines and prints answers while
//! they are generated. It reconnects after a lost connection; no message is lost or sent twice.

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

/// The arguments of `cargo xtask chat`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The gateway's address, such as ws://127.0.0.1:8080/chat/ws [default: the gateway of `cargo xtask dev`]
    #[arg(long)]
    url: Option<String>,
    /// The token of the user [default: the user token of `cargo xtask dev`]
    #[arg(long, env = "CHATBOX_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Use the admin token of `cargo xtask dev`
    #[arg(long, conflicts_with = "token")]
    admin: bool,
    /// Continue this session [default: a new session]
    #[arg(long, value_name = "UUID")]
    session: Option<Uuid>,
    /// The data folder of `cargo xtask dev` [default: .chatbox in the project]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// If the input is not a terminal: give up when the server has sent nothing for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
}

/// Runs until the input ends, until `/quit`, or until the server rejects the client for good.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (url, token) = match (&arguments.url, &arguments.token) {
        (Some(url), Some(token)) => (url.clone(), token.clone()),
        (url, token) => {
            let file = ChatFile::read(&arguments.data.clone().unwrap_or_else(default_path))?;
            let own = if arguments.admin { file.admin_token } else { file.user_token };
            (url.clone().unwrap_or(file.url), token.clone().unwrap_or(own))
        }
    };
    ensure!(url.starts_with("ws://"), "only ws:// addresses are supported, not {url}");
    let options = client::Options {
        url,
        token,
        session: arguments.session.unwrap_or_else(Uuid::new_v4),
        terminal: std::io::stdin().is_terminal(),
        patience: Duration::from_secs(arguments.wait),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let succeeded = runtime.block_on(client::run(options, client::read_lines(), std::io::stdout()))?;
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
