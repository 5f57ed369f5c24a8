//! What a stack is made of before it starts.

use std::path::PathBuf;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngExt;
use toml::Value;
use uuid::Uuid;

use super::binaries::Profile;
use super::model::Model;
use super::settings::Settings;
use super::stack::Stack;

/// Where sessions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAt {
    /// The embedded store, in the stack's folder.
    Sqlite,
    /// A server; the database gets a name of its own.
    Mongo {
        /// The connection string.
        uri: String,
        /// The database.
        database: String,
    },
}

impl StoreAt {
    /// A database of its own on the server at `uri`.
    pub fn mongo(uri: impl Into<String>) -> Self {
        Self::Mongo { uri: uri.into(), database: format!("chatbox_{}", Uuid::new_v4().simple()) }
    }
}

/// A stack in the making.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) store: StoreAt,
    pub(super) models: Vec<Model>,
    pub(super) brains: usize,
    pub(super) gateways: usize,
    pub(super) proxied: bool,
    pub(super) profile: Profile,
    pub(super) brain: Settings,
    pub(super) gateway: Settings,
    pub(super) secret: String,
    pub(super) keyring: String,
    pub(super) database: Option<PathBuf>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            store: StoreAt::Sqlite,
            models: Vec::new(),
            brains: 1,
            gateways: 1,
            proxied: false,
            profile: Profile::Same,
            brain: Settings::default(),
            gateway: Settings::default(),
            secret: random_base64(),
            keyring: format!("k1:{}", random_base64()),
            database: None,
        }
    }
}

impl Builder {
    /// With this store; the embedded one where none is named.
    #[must_use]
    pub fn store(mut self, store: StoreAt) -> Self {
        self.store = store;
        self
    }

    /// With one more model; the built-in `demo` where there is none.
    #[must_use]
    pub fn model(mut self, model: Model) -> Self {
        self.models.push(model);
        self
    }

    /// With this many brains over one store (not the embedded one); one where not said.
    #[must_use]
    pub fn brains(mut self, count: usize) -> Self {
        self.brains = count;
        self
    }

    /// With a proxy between the gateways and each brain; see [`Stack::proxy`].
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// With this many gateways; one where not said.
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// With this build of the services.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// With this keyring instead of a new one.
    #[must_use]
    pub fn keyring(mut self, keyring: impl Into<String>) -> Self {
        self.keyring = keyring.into();
        self
    }

    /// With the embedded store in this file instead of a new one.
    #[must_use]
    pub fn database(mut self, file: impl Into<PathBuf>) -> Self {
        self.database = Some(file.into());
        self
    }

    /// With a setting of the brain, such as `answers.lease_ms`.
    ///
    /// # Errors
    /// The key contradicts an earlier one.
    pub fn brain(mut self, key: &str, value: impl Into<Value>) -> Result<Self> {
        self.brain.set(key, value)?;
        Ok(self)
    }

    /// With a setting of every gateway, such as `limits.max_frame_bytes`.
    ///
    /// # Errors
    /// The key contradicts an earlier one.
    pub fn gateway(mut self, key: &str, value: impl Into<Value>) -> Result<Self> {
        self.gateway.set(key, value)?;
        Ok(self)
    }

    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// A service did not start.
    pub async fn start(self) -> Result<Stack> {
        let stack = Stack::start(self).await?;
        stack.ready().await?;
        Ok(stack)
    }

    /// Starts everything and does not wait until it is ready.
    ///
    /// # Errors
    /// A service did not start.
    pub async fn launch(self) -> Result<Stack> {
        Stack::start(self).await
    }
}

/// 32 random bytes in base64.
pub fn random_base64() -> String {
    STANDARD.encode(rand::rng().random::<[u8; 32]>())
}
