//! Real MongoDB servers for tests: one mongod on a free port, its data in a temporary folder, gone when dropped.
//!
//! [`shared()`] is the server that all tests of a run share, each in a database of its own. A test that kills or pauses its
//! server, or reads the files of it, starts one for itself: [`Mongod::start`], [`ReplicaSet::start`].

mod replica_set;
mod shared;

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

pub use self::replica_set::ReplicaSet;
pub use self::shared::{SharedServer, URI, shared};

/// Names the program.
pub const PROGRAM: &str = "CHATBOX_MONGOD";
/// The name of every replica set here.
const SET: &str = "rs0";
/// How long a server may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often another free port is tried where the first one was taken before the server bound it.
const TRIES: usize = 5;

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Mongod {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    replica_set: bool,
    process: Option<Child>,
}

impl Mongod {
    /// Starts a replica set of one member and waits until it takes writes.
    ///
    /// # Errors
    /// `CHATBOX_MONGOD` is not set, or the server does not become ready.
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
        let set = if self.replica_set { format!("?replicaSet={SET}") } else { String::new() };
        format!("mongodb://{}/{set}", self.host())
    }

    /// The folder with its data.
    pub fn data(&self) -> &Path {
        self.folder.path()
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Kills the server with SIGKILL. Its data stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only where the process has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts a killed server again, on the same port with the same data.
    ///
    /// # Errors
    /// The server does not become ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.spawn()?;
        self.wait_until_ready().await
    }

    async fn launch(replica_set: bool) -> Result<Self> {
        let mut failure = anyhow::anyhow!("never tried");
        for _ in 0..TRIES {
            let mut server = Self::spawned(replica_set)?;
            match server.wait_until_ready().await {
                Ok(()) => return Ok(server),
                Err(error) => failure = error,
            }
        }
        Err(failure.context("mongod does not become ready"))
    }

    /// A process that is just starting.
    fn spawned(replica_set: bool) -> Result<Self> {
        let Some(program) = std::env::var_os(PROGRAM).filter(|value| !value.is_empty()) else {
            bail!("{PROGRAM} is not set: it must name a mongod; `cargo xtask test` fetches one and sets it")
        };
        let folder = tempfile::Builder::new().prefix("chatbox-mongod-").tempdir()?;
        let mut server = Self { program: program.into(), folder, port: free_port()?, replica_set, process: None };
        server.spawn()?;
        Ok(server)
    }

    fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.program);
        command.arg("--dbpath").arg(self.folder.path()).args(["--port", &self.port.to_string()]);
        command.args(["--bind_ip", "127.0.0.1", "--wiredTigerCacheSizeGB", "0.25", "--nounixsocket"]);
        if self.replica_set {
            command.args(["--replSet", SET]);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        self.process = Some(process);
        Ok(())
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("mongod.log")
    }

    /// A client of this server alone, whatever set it is a member of.
    async fn client(&self) -> Result<Client> {
        let mut options = ClientOptions::parse(format!("mongodb://{}/", self.host())).await?;
        options.direct_connection = Some(true);
        options.server_selection_timeout = Some(Duration::from_millis(500));
        options.connect_timeout = Some(Duration::from_millis(500));
        Ok(Client::with_options(options)?)
    }

    /// Asks until it takes writes. Where the process has ended, the error holds the end of its log.
    async fn wait_until_ready(&mut self) -> Result<()> {
        let client = self.client().await?;
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
            // An error here means that an earlier call is in progress; the next `hello` shows its result.
            let _ = admin.run_command(doc! { "replSetInitiate": self.single_member() }).await;
            return Ok(false);
        }
        Ok(hello.get_bool("isWritablePrimary").unwrap_or(false))
    }

    fn single_member(&self) -> Document {
        doc! {
            "_id": SET,
            "members": [{ "_id": 0, "host": self.host() }],
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

/// A port that is free now. Another process may bind it before the server does; then the caller tries again.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
