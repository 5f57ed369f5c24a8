//! The brain's settings: the sections of `default.toml`, typed and checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use chatbox_shared::config::{ConfigErrors, Settings, listen_address};
use chatbox_shared::ops::OpsSettings;
use chatbox_shared::telemetry::LogSettings;
use chatbox_shared::tls::TlsSettings;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::llm::config::{ModelConfig, ProviderConfig};
use crate::store::keyring::Keyring;

mod check;

/// All settings of the brain.
#[derive(Debug, Deserialize)]
pub struct BrainConfig {
    /// The link's address and this brain's name.
    pub brain: BrainSection,
    /// The operations port.
    pub ops: OpsSettings,
    /// The security of the link.
    pub link: LinkSection,
    /// The store.
    pub store: StoreSection,
    /// The master keys.
    pub keys: KeysSection,
    /// Size limits.
    pub limits: LimitsSection,
    /// How answers are generated.
    pub answers: AnswersSection,
    /// The quotas of users.
    pub quotas: QuotasSection,
    /// Limits and retries of provider calls.
    pub provider: ProviderConfig,
    /// Reloads of the configuration.
    pub reload: ReloadSection,
    /// The shutdown.
    pub shutdown: ShutdownSection,
    /// The log.
    pub log: LogSettings,
    /// The models.
    #[serde(default)]
    pub models: Vec<ModelConfig>,
}

/// `[brain]`.
#[derive(Debug, Deserialize)]
pub struct BrainSection {
    /// Address of the link.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// This brain's name; empty: a random name.
    pub id: String,
}

/// `[link]`.
#[derive(Debug, Deserialize)]
pub struct LinkSection {
    /// Accept plaintext.
    pub insecure: bool,
    /// Mutual TLS.
    pub tls: TlsSettings,
}

/// `[store]`.
#[derive(Debug, Deserialize)]
pub struct StoreSection {
    /// The kind of store.
    pub kind: StoreKind,
    /// Create missing indexes at start.
    pub create_indexes: bool,
    /// Time limit of one operation.
    pub timeout_ms: u64,
    /// The embedded store.
    pub sqlite: SqliteSection,
    /// MongoDB.
    pub mongodb: MongoSection,
}

/// The kinds of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// Embedded, for one brain.
    Sqlite,
    /// For production.
    Mongodb,
}

/// `[store.sqlite]`.
#[derive(Debug, Deserialize)]
pub struct SqliteSection {
    /// The database file.
    pub path: PathBuf,
}

/// `[store.mongodb]`.
#[derive(Debug, Deserialize)]
pub struct MongoSection {
    /// The connection string, a secret.
    #[serde(default)]
    pub uri: Option<SecretString>,
    /// The file with the connection string.
    pub uri_file: String,
    /// Database name.
    pub database: String,
    /// Connections per server at most.
    pub max_pool_size: u32,
    /// Accept a server that is not a member of a replica set.
    pub allow_standalone: bool,
}

/// `[keys]`.
#[derive(Debug, Deserialize)]
pub struct KeysSection {
    /// Lines `kid:base64`; a secret.
    #[serde(default)]
    pub keyring: Option<SecretString>,
    /// The file with the keyring.
    pub keyring_file: String,
    /// The kid that wraps new data keys; empty: the first.
    pub active: String,
    /// Start although stored sessions need master keys that are not in the keyring.
    pub allow_missing: bool,
}

/// `[limits]`.
#[derive(Debug, Deserialize)]
pub struct LimitsSection {
    /// Connections of one user.
    pub connections_per_user: usize,
    /// Characters of one message.
    pub max_content_chars: u32,
    /// Entries that an open replays.
    pub replay_entries: u32,
    /// Characters of a session's name.
    pub max_name_chars: u32,
    /// Characters of the reason of a help request.
    pub max_reason_chars: u32,
}

/// `[answers]`.
#[derive(Debug, Deserialize)]
pub struct AnswersSection {
    /// The model of sessions that select none; empty: the first.
    pub default_model: String,
    /// Lease of a growing answer.
    pub lease_ms: u64,
    /// A growing answer is saved after this time.
    pub checkpoint_ms: u64,
    /// Or after this many new bytes.
    pub checkpoint_bytes: usize,
    /// The model that generates session names; empty: none.
    pub naming_model: String,
    /// The interval of the search for expired leases.
    pub sweep_interval_ms: u64,
    /// Attempts before an answer fails.
    pub max_attempts: u32,
}

/// `[quotas]`.
#[derive(Debug, Deserialize)]
pub struct QuotasSection {
    /// Tokens per user and day; 0: no limit.
    pub tokens_per_day: u64,
    /// Cost per user and day; 0: no limit.
    pub cost_per_day: f64,
}

/// `[reload]`.
#[derive(Debug, Deserialize)]
pub struct ReloadSection {
    /// The interval of the check for changed files; 0: never.
    pub watch_seconds: u64,
}

/// `[shutdown]`.
#[derive(Debug, Deserialize)]
pub struct ShutdownSection {
    /// Time for running answers to finish.
    pub drain_seconds: u64,
}

impl Settings for BrainConfig {
    const DEFAULTS: &'static str = include_str!("../default.toml");
    const SECRETS: &'static [&'static str] = &["store.mongodb.uri", "keys.keyring"];
    const UNLISTED: &'static [&'static str] = &["models"];

    fn validate(&self, faults: &mut ConfigErrors) {
        self.link.tls.validate(self.link.insecure, faults);
        self.log.validate(faults);
        self.validate_addresses(faults);
        self.validate_store(faults);
        self.validate_answers(faults);
        let limits = &self.limits;
        faults.ensure(limits.connections_per_user >= 1, "limits.connections_per_user", "must be at least 1");
        let chars = 1..=1_000_000;
        faults.ensure(chars.contains(&limits.max_content_chars), "limits.max_content_chars", "must be 1 to 1000000");
        faults.ensure((1..=10_000).contains(&limits.replay_entries), "limits.replay_entries", "must be 1 to 10000");
        faults.ensure((1..=1000).contains(&limits.max_name_chars), "limits.max_name_chars", "must be 1 to 1000");
        faults.ensure((1..=10_000).contains(&limits.max_reason_chars), "limits.max_reason_chars", "must be 1 to 10000");
        if let Err(error) = self.keyring() {
            faults.add("keys.keyring", error);
        }
    }
}

impl BrainConfig {
    /// The keyring.
    ///
    /// # Errors
    /// Where it is missing or invalid. Names the line, never its content.
    pub fn keyring(&self) -> Result<Keyring, String> {
        let text = self.keys.keyring.as_ref().ok_or(
            "missing: set CHATBOX__KEYS__KEYRING or keys.keyring_file; contents are never stored without encryption",
        )?;
        let active = Some(self.keys.active.as_str()).filter(|active| !active.is_empty());
        Keyring::parse(text.expose_secret(), active).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests;
