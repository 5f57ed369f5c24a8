//! A fake model provider, for tests and for use by hand: an HTTP server on the loopback that speaks OpenAI Chat Completions,
//! Anthropic Messages and Dify on one port, and fails in every way that real providers were seen to fail. Clients reach it
//! over real sockets.
//!
//! A test hands it one [`Script`] per request ([`FakeProvider::script`]), or one for all others
//! ([`FakeProvider::always`]), or lets it choose at random ([`FakeProvider::random`]); without a script it answers with a
//! short well-formed text. [`presets`] has named scripts. The journal records what arrived and what was sent. `cargo xtask
//! mock-llm` starts it by hand: see `docs/mock-llm.md`.

mod admin;
pub mod dialect;
mod event;
mod fault;
mod faulty_stream;
mod format;
mod gate;
mod gzip;
mod journal;
mod journal_json;
mod json;
mod plan;
mod player;
pub mod presets;
mod random;
mod recorder;
mod script;
mod server;
pub mod stamp;
mod step;
mod stops;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use self::fault::{Fault, Form, Retry};
pub use self::format::{LineEnd, Space, SseFormat, Tail};
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

/// The running server. Dropping it stops it and closes its connections.
pub struct FakeProvider {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl FakeProvider {
    /// Starts it on a free port of the loopback.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_on(0).await
    }

    /// Starts it on this port of the loopback.
    ///
    /// # Errors
    /// The port is taken.
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

    /// Requests for which no script is queued are answered by this one. Replaces [`FakeProvider::random`].
    pub fn always(&self, script: Script) {
        self.shared.plan.always(script);
    }

    /// Requests for which no script is queued get a random one: the first of them `mix.pick(seed, 0)`, the next one
    /// `mix.pick(seed, 1)`. Replaces [`FakeProvider::always`].
    pub fn random(&self, seed: u64, mix: Mix) {
        self.shared.plan.random(seed, mix);
    }

    /// Forgets all scripts and the journal. Answers that run go on.
    pub fn reset(&self) {
        self.shared.plan.clear();
        self.shared.journal.clear();
    }

    /// Every request so far, oldest first, those for stopping and for information included.
    pub fn journal(&self) -> Vec<Call> {
        self.shared.journal.calls()
    }

    /// Every request for an answer so far, oldest first.
    pub fn chat_calls(&self) -> Vec<Call> {
        self.journal().into_iter().filter(Call::is_chat).collect()
    }

    /// Waits until the journal satisfies `done` and returns it.
    ///
    /// # Errors
    /// With the journal as it is, if that takes more than ten seconds.
    pub async fn wait_until(&self, done: impl Fn(&[Call]) -> bool) -> anyhow::Result<Vec<Call>> {
        self.wait_up_to(WAIT, done).await
    }

    /// Like [`FakeProvider::wait_until`], for tests that take longer.
    ///
    /// # Errors
    /// With the journal as it is, if that takes more time than this.
    pub async fn wait_up_to(&self, limit: Duration, done: impl Fn(&[Call]) -> bool) -> anyhow::Result<Vec<Call>> {
        self.shared.journal.wait_until(done, limit).await
    }
}

impl fmt::Debug for FakeProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeProvider").field("addr", &self.addr).finish_non_exhaustive()
    }
}
