//! `cargo xtask dev`: builds brain and gateway, starts them on this machine with a data folder, generated keys and
//! tokens, and stops them on Ctrl-C.

mod folder;
mod private_file;
mod service;
mod settings;
mod models;
mod ports;
mod token;
mod http;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::project;
use folder::Folder;
pub(crate) use folder::{ChatFile, default_path};
use ports::Ports;
use service::Service;

/// The programs of brain and gateway.
const PROGRAMS: [&str; 2] = ["chatbox-brain", "chatbox-gateway"];
/// How long the services may take until both are ready.
const START: Duration = Duration::from_secs(60);
/// How long a service may take to end after SIGTERM: longer than its drain, which takes up to 10 s.
const STOP: Duration = Duration::from_secs(15);
/// The interval of the readiness checks.
const POLL: Duration = Duration::from_millis(50);

/// The arguments of `cargo xtask dev`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder for the database, keys and logs [default: .chatbox in the project]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Optimised programs: slower to build, faster to run
    #[arg(long)]
    release: bool,
    #[command(flatten)]
    ports: ports::Wanted,
    /// A further origin whose pages may connect, such as http://localhost:4000; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,
    /// Show the services' log lines here, instead of writing them to files in the data folder
    #[arg(long)]
    logs: bool,
}

/// Runs until Ctrl-C, SIGTERM, or until one of the services ends by itself.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    // The folder and the ports are checked before the build, because the build takes long.
    let folder = Folder::open(&arguments.data.clone().unwrap_or_else(default_path))?;
    Ports::choose(&arguments.ports)?;
    let programs = build(arguments.release)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let models = models::from_environment().await;
        for note in &models.notes {
            eprintln!("note: {note}");
        }
        let ports = Ports::choose(&arguments.ports)?;
        let paths = settings::write(&folder, &ports, &models.models, &arguments.origin)?;
        let start = |name, program, config: &PathBuf, hidden: &[&str]| {
            Service::start(name, &programs.join(program), config, hidden, (!arguments.logs).then(|| folder.log(name)))
        };
        let mut brain = start("brain", PROGRAMS[0], &paths.brain, &[])?;
        // The gateway must not see a provider's key.
        let mut gateway = match start("gateway", PROGRAMS[1], &paths.gateway, models::KEYS) {
            Ok(gateway) => gateway,
            Err(error) => {
                brain.stop(STOP).await;
                return Err(error);
            }
        };
        let outcome = async {
            folder.remember([(PROGRAMS[0], brain.pid()), (PROGRAMS[1], gateway.pid())])?;
            let ended = tokio::select! {
                ready = ready(&ports) => ready.map(|()| false),
                () = signals.next() => Ok(true),
                end = brain.ended() => Err(end),
                end = gateway.ended() => Err(end),
            };
            if ended? {
                return Ok(());
            }
            announce(&folder, &ports, &models, arguments)?;
            tokio::select! {
                () = signals.next() => Ok(()),
                end = brain.ended() => Err(end),
                end = gateway.ended() => Err(end),
            }
        }
        .await;
        eprintln!("stopping");
        // The gateway stops first: its clients get their close frames, and their last messages still reach the brain.
        let clean = gateway.stop(STOP).await & brain.stop(STOP).await;
        folder.forget();
        outcome?;
        Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn build(release: bool) -> Result<PathBuf> {
    let mut command = project::cargo();
    // The packages and features of `cargo xtask test`, so that neither command compiles the dependencies of the other again.
    command.args(["build", "--locked", "--workspace", "--bins"]);
    if release {
        command.arg("--release");
    }
    project::run(&mut command).context("cannot build the services")?;
    project::programs(release)
}

/// Waits until both services are ready.
async fn ready(ports: &Ports) -> Result<()> {
    let both = async {
        for port in [ports.brain_ops, ports.gateway_ops] {
            while !matches!(http::get(&format!("127.0.0.1:{port}"), "/readyz").await, Ok((200, _))) {
                tokio::time::sleep(POLL).await;
            }
        }
    };
    if tokio::time::timeout(START, both).await.is_ok() {
        return Ok(());
    }
    let mut states = Vec::new();
    for (name, port) in [("brain", ports.brain_ops), ("gateway", ports.gateway_ops)] {
        let state = match http::get(&format!("127.0.0.1:{port}"), "/readyz").await {
            Ok((status, body)) => format!("{name}: {status} {}", body.trim()),
            Err(error) => format!("{name}: {error:#}"),
        };
        states.push(state);
    }
    bail!("not ready after {} s\n{}", START.as_secs(), states.join("\n"))
}

/// Prints the address, the tokens and the paths: one line each, for people and for scripts.
fn announce(folder: &Folder, ports: &Ports, models: &models::Found, arguments: &Arguments) -> Result<()> {
    let url = format!("ws://127.0.0.1:{}/chat/ws", ports.gateway);
    let user = token::user(folder.secret())?;
    let admin = token::admin(folder.secret())?;
    folder.write_chat(&ChatFile { url: url.clone(), user_token: user.clone(), admin_token: admin.clone() })?;
    let chat = match &arguments.data {
        Some(data) => format!("cargo xtask chat --data '{}'", data.display()),
        None => "cargo xtask chat".to_owned(),
    };
    println!("chatbox is ready");
    println!("websocket: {url}");
    println!("user token: {user}");
    println!("admin token: {admin}");
    println!("models: {}", models.names());
    println!("health: http://127.0.0.1:{}/readyz http://127.0.0.1:{}/readyz", ports.gateway_ops, ports.brain_ops);
    println!("data: {}", folder.path().display());
    println!("chat from another terminal: {chat}");
    println!("stop with Ctrl-C");
    Ok(())
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
