//! The services together: one or more brains and gateways, and a folder. Ports are free ones at the first start and stay the
//! same over restarts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::binaries::{self, Profile};
use super::handshake::HandshakeRequest;
use super::model::{API_KEY, API_KEY_VARIABLE, Model};
use super::process::{Launch, Process};
use super::proxy::Proxy;
use super::raw_http;
use super::settings::Settings;
use super::start::{Builder, StoreAt};
use super::tokens;
use super::waits::eventually;

/// How long [`Stack::stop`] waits before it asks for an immediate end.
const ORDERLY_END: Duration = Duration::from_millis(300);

/// A running stack. Dropping it kills its processes and removes its folder.
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
    /// The setting and the field of the log line `listening` that hold the address for other services.
    address_keys: (&'static str, &'static str),
    pub(super) launch: Launch,
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    pub(super) ops: SocketAddr,
    /// The output of earlier runs.
    past: String,
}

impl Stack {
    /// A builder with the default stack: one brain with the embedded store, one gateway, the `demo` model.
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

    /// Waits until every gateway is ready, which means that it has a link to a brain.
    ///
    /// # Errors
    /// A gateway did not become ready.
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

    /// The store.
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

    /// A handshake with the first gateway, without a token.
    pub fn handshake(&self) -> HandshakeRequest {
        self.handshake_at(0)
    }

    /// A handshake with one of the gateways, without a token.
    pub fn handshake_at(&self, index: usize) -> HandshakeRequest {
        HandshakeRequest::new(self.gateways[index].address, "/chat/ws")
    }

    /// A handshake as this user, with the first gateway.
    ///
    /// # Errors
    /// The token cannot be signed.
    pub fn user(&self, user: &str) -> Result<HandshakeRequest> {
        self.user_at(user, 0)
    }

    /// A handshake as this user, with one of the gateways.
    ///
    /// # Errors
    /// The token cannot be signed.
    pub fn user_at(&self, user: &str, index: usize) -> Result<HandshakeRequest> {
        Ok(self.handshake_at(index).bearer(&self.token(user)?))
    }

    /// A handshake as this administrator, with the first gateway.
    ///
    /// # Errors
    /// The token cannot be signed.
    pub fn admin(&self, name: &str) -> Result<HandshakeRequest> {
        Ok(self.handshake().bearer(&tokens::hs256(&self.secret, &tokens::admin_claims(name))?))
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
    /// It did not end in time, or with a failure.
    pub async fn term_brain(&mut self) -> Result<()> {
        self.brains[0].terminate().await
    }

    /// Asks the brain to end, waits, and starts it again.
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
    /// It did not end in time, or with a failure.
    pub async fn term_gateway(&mut self, index: usize) -> Result<()> {
        self.gateways[index].terminate().await
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

impl Stack {
    /// Stops all services and returns everything they wrote, from their first line to their last, earlier runs included.
    /// The first signal asks for an orderly end, the second for an immediate one.
    ///
    /// # Errors
    /// A service did not end in time.
    pub async fn stop(&mut self) -> Result<String> {
        for service in self.brains.iter().chain(&self.gateways) {
            service.process.terminate()?;
        }
        tokio::time::sleep(ORDERLY_END).await;
        let mut output = String::new();
        for service in self.brains.iter_mut().chain(&mut self.gateways) {
            // A process that has ended cannot be signalled, which is what this waits for.
            let _ended = service.process.terminate();
            output.push_str(&format!("{}\n{}\n", service.past, service.process.drained().await?));
        }
        Ok(output)
    }
}

impl Drop for Stack {
    /// Test runners show this output only where the test fails.
    #[expect(clippy::print_stderr, reason = "a failing test must show the log of the services")]
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
        let address_keys = if program == "brain" { ("brain.listen", "link") } else { ("gateway.listen", "public") };
        let config = folder.join(format!("{program}-{index}.toml"));
        let mut launch = launch;
        launch.args = vec!["--config".to_owned(), config.display().to_string()];
        let (process, address, ops) =
            launch_service(program, profile, &config, &settings, &launch, address_keys.1).await?;
        let mut service =
            Self { program, settings, config, address_keys, launch, process, address, ops, past: String::new() };
        service.settings.set(service.address_keys.0, address.to_string())?;
        service.settings.set("ops.listen", ops.to_string())?;
        Ok(service)
    }

    pub(super) async fn restart(&mut self, profile: Profile) -> Result<()> {
        self.past = format!("{}\n{}", self.past, self.process.output());
        let started =
            launch_service(self.program, profile, &self.config, &self.settings, &self.launch, self.address_keys.1)
                .await?;
        (self.process, self.address, self.ops) = started;
        Ok(())
    }

    pub(super) async fn terminate(&mut self) -> Result<()> {
        self.process.terminate()?;
        self.ended().await
    }

    pub(super) async fn ended(&mut self) -> Result<()> {
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
    address_field: &str,
) -> Result<(Process, SocketAddr, SocketAddr)> {
    std::fs::write(config, settings.text())?;
    let mut process = Process::spawn(program, &binaries::find(program, profile)?, launch)?;
    let listening = |line: &Value| {
        let fields = if line["fields"].is_object() { &line["fields"] } else { line };
        (fields["message"] == "listening").then(|| (fields[address_field].clone(), fields["ops"].clone()))
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
