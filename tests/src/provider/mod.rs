//! A model provider for tests and for people: an HTTP server on the loopback that speaks the exact bytes of OpenAI Chat
//! Completions, Anthropic Messages and Dify on one port, and does to its clients what it is told to, down to the worst that
//! was seen of real ones. It is no mock: clients reach it over real sockets and cannot tell it from the real thing, except
//! by what it says.
//!
//! A test hands it one [`Script`] per request ([`ProviderDouble::script`]), or one for all others
//! ([`ProviderDouble::always`]), or lets chance decide ([`ProviderDouble::random`]); without any it answers with a short
//! well-formed text. [`presets`] has a script for every behaviour worth a name. What arrived, and what was truthfully sent,
//! stands in the journal. By hand it is started with `cargo xtask mock-llm`: see `docs/mock-llm.md`.

mod admin;
pub mod dialect;
mod dress;
mod event;
mod fault;
mod gate;
mod gzip;
mod journal;
mod json;
mod line;
mod plan;
mod player;
pub mod presets;
mod random;
mod script;
mod server;
pub mod stamp;
mod step;
mod stops;
#[cfg(test)]
mod tests;
mod upload;
mod view;
mod witness;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use self::dress::{Dress, LineEnd, Space, Tail};
pub use self::fault::{Fault, Form, Retry};
pub use self::gate::Gate;
pub use self::journal::{Call, End, Sent};
pub use self::json::{script as script_of_json, script_text};
pub use self::player::Cut;
pub use self::random::Mix;
pub use self::script::{Driver, Script};
use self::server::Shared;
pub use self::step::{Finish, Step, Usage};

/// How long a test waits for something in the journal before it fails.
const WAIT: Duration = Duration::from_secs(10);

/// The running server. It ends when dropped, and cuts what it has open.
pub struct ProviderDouble {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl ProviderDouble {
    /// Starts it on a free port of the loopback.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_on(0).await
    }

    /// Starts it on this port of the loopback.
    ///
    /// # Errors
    /// Where the port is taken.
    pub async fn start_on(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(server::accept(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, _tasks: tasks })
    }

    /// The base URL for all three protocols: `http://127.0.0.1:PORT/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The next request that has no script yet is answered by this one.
    pub fn script(&self, script: Script) {
        self.shared.plan.push(script);
    }

    /// Requests for which no script is queued are answered by this one. It takes the place of [`ProviderDouble::random`].
    pub fn always(&self, script: Script) {
        self.shared.plan.always(script);
    }

    /// Requests for which no script is queued are answered by chance: the first of them by `mix.pick(seed, 0)`, the next by
    /// `mix.pick(seed, 1)`. It takes the place of [`ProviderDouble::always`].
    pub fn random(&self, seed: u64, mix: Mix) {
        self.shared.plan.random(seed, mix);
    }

    /// Forgets all scripts and all that is in the journal. Answers that run go on.
    pub fn reset(&self) {
        self.shared.plan.clear();
        self.shared.journal.clear();
    }

    /// Every request so far, oldest first, those for stopping and for information included.
    pub fn journal(&self) -> Vec<Call> {
        self.shared.journal.calls()
    }

    /// Waits until the journal is as it should be and returns it.
    ///
    /// # Errors
    /// With the journal as it is, if that takes more than ten seconds.
    pub async fn wait_until(&self, done: impl Fn(&[Call]) -> bool) -> anyhow::Result<Vec<Call>> {
        self.wait_up_to(WAIT, done).await
    }

    /// Like [`ProviderDouble::wait_until`], for tests that take longer.
    ///
    /// # Errors
    /// With the journal as it is, if that takes more time than this.
    pub async fn wait_up_to(&self, limit: Duration, done: impl Fn(&[Call]) -> bool) -> anyhow::Result<Vec<Call>> {
        self.shared.journal.wait_until(done, limit).await
    }
}

impl fmt::Debug for ProviderDouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderDouble").field("addr", &self.addr).finish_non_exhaustive()
    }
}
