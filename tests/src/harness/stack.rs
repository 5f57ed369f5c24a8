//! The services together: brains (mostly one), some gateways, a folder. Ports are free ones at the first start and stay the same
//! over restarts, as an address in a cluster would.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::binaries::{self, Profile};
use super::handshake::Knock;
use super::model::{API_KEY, API_KEY_VARIABLE, Model};
use super::process::{Launch, Process};
use super::proxy::Proxy;
use super::raw_http;
use super::settings::Settings;
use super::start::{Builder, StoreAt};
use super::tokens;
use super::waits::eventually;

/// A running stack. Its processes and its folder go with it.
#[derive(Debug)]
pub struct Stack {
    folder: TempDir,
    store: StoreAt,
    secret: String,
    keyring: String,
    pub(super) profile: Profile,
    pub(super) brains: Vec<Service>,
    gateways: Vec<Service>,
    pub(super) proxies: Vec<Proxy>,
}

/// One service with its addresses.
#[derive(Debug)]
pub(super) struct Service {
    program: &'static str,
    settings: Settings,
    config: PathBuf,
    /// Under which setting and log field the address for others stands.
    door: (&'static str, &'static str),
    pub(super) launch: Launch,
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    pub(super) ops: SocketAddr,
    /// The output of earlier runs.
    past: String,
}

impl Stack {
    /// Begins to describe a stack.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(super) async fn start(builder: Builder) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("chatbox-e2e-").tempdir()?;
        let mut stack = Self {
            folder,
            store: builder.store.clone(),
            secret: builder.secret.clone(),
            keyring: builder.keyring.clone(),
            profile: builder.profile,
            brains: Vec::new(),
            gateways: Vec::new(),
            proxies: Vec::new(),
        };
        for index in 0..builder.brains {
            let settings = brain_settings(&builder, index, stack.folder.path())?;
            let launch = brain_launch(&builder);
            let brain = Service::start("brain", stack.profile, stack.folder.path(), index, settings, launch).await?;
            if builder.proxied {
                stack.proxies.push(Proxy::start(brain.address).await?);
            }
            stack.brains.push(brain);
        }
        let brains: Vec<SocketAddr> = if builder.proxied {
            stack.proxies.iter().map(Proxy::address).collect()
        } else {
            stack.brains.iter().map(|brain| brain.address).collect()
        };
        for index in 0..builder.gateways {
            let settings = gateway_settings(&builder, index, &brains)?;
            let launch = Launch::default().env("CHATBOX__AUTH__HS256_SECRET", &builder.secret);
            let gateway =
                Service::start("gateway", stack.profile, stack.folder.path(), index, settings, launch).await?;
            stack.gateways.push(gateway);
        }
        Ok(stack)
    }

    /// Waits until every gateway says that it is ready, which means: linked to a brain.
    ///
    /// # Errors
    /// One did not become ready.
    pub async fn ready(&self) -> Result<()> {
        for gateway in &self.gateways {
            eventually("a ready gateway", || async {
                let answer = raw_http::get(gateway.ops, "/readyz").await?;
                ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// The folder with the configuration, and the embedded store's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The embedded store's file.
    pub fn database_file(&self) -> PathBuf {
        self.folder.path().join("chatbox.db")
    }

    /// Where the sessions are kept.
    pub fn store(&self) -> &StoreAt {
        &self.store
    }

    /// The HS256 secret of the gateways.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The brain's keyring.
    pub fn keyring(&self) -> &str {
        &self.keyring
    }

    /// A valid token of an ordinary user.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn token(&self, user: &str) -> Result<String> {
        tokens::hs256(&self.secret, &tokens::claims(user))
    }

    /// The public address of a gateway.
    pub fn gateway(&self, index: usize) -> SocketAddr {
        self.gateways[index].address
    }

    /// The operations address of a gateway.
    pub fn gateway_ops(&self, index: usize) -> SocketAddr {
        self.gateways[index].ops
    }

    /// The operations address of the brain.
    pub fn brain_ops(&self) -> SocketAddr {
        self.brains[0].ops
    }

    /// The address of the brain's link.
    pub fn brain_link(&self) -> SocketAddr {
        self.brains[0].address
    }

    /// A handshake with the first gateway, without a token.
    pub fn knock(&self) -> Knock {
        self.knock_at(0)
    }

    /// A handshake with one of the gateways, without a token.
    pub fn knock_at(&self, index: usize) -> Knock {
        Knock::new(self.gateways[index].address, "/chat/ws")
    }

    /// A handshake as this user, with the first gateway.
    ///
    /// # Errors
    /// The token cannot be signed.
    pub fn user(&self, user: &str) -> Result<Knock> {
        self.user_at(user, 0)
    }

    /// A handshake as this user, with one of the gateways.
    ///
    /// # Errors
    /// The token cannot be signed.
    pub fn user_at(&self, user: &str, index: usize) -> Result<Knock> {
        Ok(self.knock_at(index).bearer(&self.token(user)?))
    }

    /// The brain's process.
    pub fn brain_process(&mut self) -> &mut Process {
        &mut self.brains[0].process
    }

    /// A gateway's process.
    pub fn gateway_process(&mut self, index: usize) -> &mut Process {
        &mut self.gateways[index].process
    }

    /// Kills the brain and waits for its end.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill_brain(&mut self) -> Result<()> {
        self.brains[0].process.kill().await
    }

    /// Starts the brain again after its end, at the same address.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_brain(&mut self) -> Result<()> {
        self.brains[0].restart(self.profile).await
    }

    /// Asks the brain to end, waits, and expects success.
    ///
    /// # Errors
    /// It did not end, or not well.
    pub async fn term_brain(&mut self) -> Result<()> {
        self.brains[0].end_well().await
    }

    /// Ends the brain properly and starts it again.
    ///
    /// # Errors
    /// One of the two failed.
    pub async fn restart_brain(&mut self) -> Result<()> {
        self.term_brain().await?;
        self.start_brain().await
    }

    /// Kills a gateway and waits for its end.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill_gateway(&mut self, index: usize) -> Result<()> {
        self.gateways[index].process.kill().await
    }

    /// Asks a gateway to end, waits, and expects success.
    ///
    /// # Errors
    /// It did not end, or not well.
    pub async fn term_gateway(&mut self, index: usize) -> Result<()> {
        self.gateways[index].end_well().await
    }

    /// Starts a gateway again after its end, at the same address.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_gateway(&mut self, index: usize) -> Result<()> {
        self.gateways[index].restart(self.profile).await?;
        self.ready().await
    }

    /// Everything all processes wrote so far, earlier runs included.
    pub fn output(&self) -> String {
        let services = self.brains.iter().chain(&self.gateways);
        services.map(|service| format!("{}\n{}\n", service.past, service.process.output())).collect()
    }
}

impl Drop for Stack {
    /// Test runners show this only where the test fails.
    #[expect(clippy::print_stderr, reason = "a failing test must show what the services said")]
    fn drop(&mut self) {
        for service in self.brains.iter().chain(&self.gateways) {
            eprintln!("{}", service.process.tail());
        }
    }
}

impl Service {
    async fn start(
        program: &'static str,
        profile: Profile,
        folder: &Path,
        index: usize,
        settings: Settings,
        launch: Launch,
    ) -> Result<Self> {
        let door = if program == "brain" { ("brain.listen", "link") } else { ("gateway.listen", "public") };
        let config = folder.join(format!("{program}-{index}.toml"));
        let mut launch = launch;
        launch.args = vec!["--config".to_owned(), config.display().to_string()];
        let (process, address, ops) = launch_service(program, profile, &config, &settings, &launch, door.1).await?;
        let mut service = Self { program, settings, config, door, launch, process, address, ops, past: String::new() };
        service.settings.set(service.door.0, address.to_string())?;
        service.settings.set("ops.listen", ops.to_string())?;
        Ok(service)
    }

    pub(super) async fn restart(&mut self, profile: Profile) -> Result<()> {
        self.past = format!("{}\n{}", self.past, self.process.output());
        let started =
            launch_service(self.program, profile, &self.config, &self.settings, &self.launch, self.door.1).await?;
        (self.process, self.address, self.ops) = started;
        Ok(())
    }

    pub(super) async fn end_well(&mut self) -> Result<()> {
        self.process.terminate().await?;
        let status = self.process.ended().await?;
        ensure!(status.success(), "{} ended with {status}\n{}", self.program, self.process.tail());
        Ok(())
    }
}

async fn launch_service(
    program: &str,
    profile: Profile,
    config: &Path,
    settings: &Settings,
    launch: &Launch,
    door: &str,
) -> Result<(Process, SocketAddr, SocketAddr)> {
    std::fs::write(config, settings.text())?;
    let mut process = Process::spawn(program, &binaries::find(program, profile)?, launch)?;
    let listening = |line: &Value| {
        let fields = if line["fields"].is_object() { &line["fields"] } else { line };
        (fields["message"] == "listening").then(|| (fields[door].clone(), fields["ops"].clone()))
    };
    let (address, ops) = process.logged("listening", listening).await?;
    let parse = |value: &Value| -> Result<SocketAddr> {
        let text = value.as_str().with_context(|| format!("no address in the log line `listening` of {program}"))?;
        text.parse().with_context(|| format!("not an address: {text}"))
    };
    Ok((process, parse(&address)?, parse(&ops)?))
}

fn brain_settings(builder: &Builder, index: usize, folder: &Path) -> Result<Settings> {
    let mut settings = builder.brain.clone();
    settings.set("brain.listen", "127.0.0.1:0")?;
    settings.set("brain.id", format!("brain-{index}"))?;
    settings.set("ops.listen", "127.0.0.1:0")?;
    settings.set("link.insecure", !settings.has("link.tls"))?;
    match &builder.store {
        StoreAt::Sqlite => {
            settings.set("store.kind", "sqlite")?;
            let file = builder.database.clone().unwrap_or_else(|| folder.join("chatbox.db"));
            settings.set("store.sqlite.path", file.display().to_string())?;
        }
        StoreAt::Mongo { database, .. } => {
            settings.set("store.kind", "mongodb")?;
            settings.set("store.mongodb.database", database.as_str())?;
        }
    }
    if !builder.models.is_empty() {
        let models: Vec<toml::Value> = builder.models.iter().cloned().map(|it| Model::table(it).into()).collect();
        settings.set("models", models)?;
    }
    Ok(settings)
}

fn brain_launch(builder: &Builder) -> Launch {
    let launch = Launch::default().env("CHATBOX__KEYS__KEYRING", &builder.keyring).env(API_KEY_VARIABLE, API_KEY);
    match &builder.store {
        StoreAt::Sqlite => launch,
        StoreAt::Mongo { uri, .. } => launch.env("CHATBOX__STORE__MONGODB__URI", uri),
    }
}

fn gateway_settings(builder: &Builder, index: usize, brains: &[SocketAddr]) -> Result<Settings> {
    let mut settings = builder.gateway.clone();
    settings.set("gateway.listen", "127.0.0.1:0")?;
    settings.set("gateway.id", format!("gateway-{index}"))?;
    settings.set("ops.listen", "127.0.0.1:0")?;
    let scheme = if settings.has("link.tls") { "https" } else { "http" };
    let endpoints: Vec<String> = brains.iter().map(|brain| format!("{scheme}://{brain}")).collect();
    settings.set("brain.endpoints", endpoints)?;
    settings.set("link.insecure", !settings.has("link.tls"))?;
    Ok(settings)
}
