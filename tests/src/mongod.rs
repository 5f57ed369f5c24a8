//! A real mongod for tests: a replica set of one member on a free port, its data in a temporary folder, gone when dropped.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bson::{Document, doc};
use mongodb::{Client, options::ClientOptions};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Names the program.
const VARIABLE: &str = "CHATBOX_MONGOD";

/// How long a server may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How often a free port may turn out to be taken by somebody quicker.
const TRIES: usize = 5;

/// A running server. Dropping it kills it.
pub struct Mongod {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    replica_set: bool,
    process: Option<Child>,
}

impl Mongod {
    /// Starts the program that `CHATBOX_MONGOD` names, as a replica set of one member, and waits until it takes writes.
    ///
    /// # Errors
    /// Where the variable is not set, or the server does not become ready.
    pub async fn start() -> Result<Self> {
        Self::launch(true).await
    }

    /// Starts a server that is no member of a replica set.
    ///
    /// # Errors
    /// As [`Mongod::start`].
    pub async fn standalone() -> Result<Self> {
        Self::launch(false).await
    }

    /// The connection string.
    pub fn uri(&self) -> String {
        let set = if self.replica_set { "?replicaSet=rs0" } else { "" };
        format!("mongodb://127.0.0.1:{}/{set}", self.port)
    }

    /// The folder with its data.
    pub fn data(&self) -> &Path {
        self.folder.path()
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Kills the server as `kill -9` does. Its data stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Either may fail only if the process is gone already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts a killed server again, on the same port with the same data.
    ///
    /// # Errors
    /// Where it does not become ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.spawn()?;
        self.wait_until_ready().await
    }

    async fn launch(replica_set: bool) -> Result<Self> {
        let Some(program) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) else {
            bail!("{VARIABLE} is not set: it must name a mongod; `cargo xtask test` fetches one and sets it")
        };
        let mut failure = anyhow::anyhow!("never tried");
        for _ in 0..TRIES {
            let folder = tempfile::Builder::new().prefix("chatbox-mongod-").tempdir()?;
            let port = free_port()?;
            let mut server = Self { program: program.clone().into(), folder, port, replica_set, process: None };
            server.spawn()?;
            match server.wait_until_ready().await {
                Ok(()) => return Ok(server),
                Err(error) => failure = error,
            }
        }
        Err(failure.context("mongod does not become ready"))
    }

    fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.program);
        command.arg("--dbpath").arg(self.folder.path()).args(["--port", &self.port.to_string()]);
        command.args(["--bind_ip", "127.0.0.1", "--wiredTigerCacheSizeGB", "0.25", "--nounixsocket"]);
        if self.replica_set {
            command.args(["--replSet", "rs0"]);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        self.process = Some(process);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("mongod.log")
    }

    /// Asks until it takes writes. A process that has ended is reported with the end of its log.
    async fn wait_until_ready(&mut self) -> Result<()> {
        let mut options = ClientOptions::parse(format!("mongodb://127.0.0.1:{}/", self.port)).await?;
        options.direct_connection = Some(true);
        options.server_selection_timeout = Some(Duration::from_millis(500));
        options.connect_timeout = Some(Duration::from_millis(500));
        let client = Client::with_options(options)?;
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = self.process.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("mongod ended with {status}: {}", self.log_tail());
            }
            if self.is_ready(&client).await.unwrap_or(false) {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("mongod was not ready within {READY_WITHIN:?}: {}", self.log_tail())
    }

    async fn is_ready(&self, client: &Client) -> Result<bool> {
        let admin = client.database("admin");
        let hello: Document = admin.run_command(doc! { "hello": 1 }).await?;
        if self.replica_set && !hello.contains_key("setName") {
            // Refused once it has begun: then it only has to be waited for.
            let _ = admin.run_command(doc! { "replSetInitiate": self.replica_set_config() }).await;
            return Ok(false);
        }
        Ok(hello.get_bool("isWritablePrimary").unwrap_or(false))
    }

    fn replica_set_config(&self) -> Document {
        doc! {
            "_id": "rs0",
            "members": [{ "_id": 0, "host": format!("127.0.0.1:{}", self.port) }],
            "settings": { "electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200 },
        }
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that is free now. Nobody keeps it free until the server binds it, so the caller tries again.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
