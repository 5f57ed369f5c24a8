//! The description of a stack before it starts.

use std::path::PathBuf;
use std::sync::Arc;

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
use crate::mongod::{self, Mongod};

/// The store of a stack.
#[derive(Debug, Clone)]
pub enum StoreAt {
    /// SQLite, in the stack's folder.
    Sqlite,
    /// A MongoDB server.
    Mongo {
        /// The connection string.
        uri: String,
        /// The name of a database that no other test uses.
        database: String,
        /// The server, where it runs for this stack alone.
        server: Option<Arc<Mongod>>,
    },
}

impl StoreAt {
    /// A new database on the server that all tests of a run share.
    ///
    /// # Errors
    /// There is none, and none can be started.
    pub async fn mongodb() -> Result<Self> {
        let server = mongod::shared().await?;
        let database = new_database();
        Ok(Self::Mongo { uri: server.uri().to_owned(), database, server: server.own() })
    }

    /// A new database on the server at `uri`, which the test itself keeps running.
    pub fn mongo(uri: impl Into<String>) -> Self {
        Self::Mongo { uri: uri.into(), database: new_database(), server: None }
    }
}

fn new_database() -> String {
    format!("chatbox_{}", Uuid::new_v4().simple())
}

/// The description of a stack.
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
    /// With this store. Default: the embedded one.
    #[must_use]
    pub fn store(mut self, store: StoreAt) -> Self {
        self.store = store;
        self
    }

    /// With one more model. Default: the built-in `demo`.
    #[must_use]
    pub fn model(mut self, model: Model) -> Self {
        self.models.push(model);
        self
    }

    /// With this many brains over one MongoDB store. Default: one.
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

    /// With this many gateways. Default: one.
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
    /// A part of the key is a plain value already.
    pub fn brain(mut self, key: &str, value: impl Into<Value>) -> Result<Self> {
        self.brain.set(key, value)?;
        Ok(self)
    }

    /// With a setting of every gateway, such as `limits.max_frame_bytes`.
    ///
    /// # Errors
    /// A part of the key is a plain value already.
    pub fn gateway(mut self, key: &str, value: impl Into<Value>) -> Result<Self> {
        self.gateway.set(key, value)?;
        Ok(self)
    }

    /// Starts everything and waits until it is ready, with links to all brains.
    ///
    /// # Errors
    /// A service did not start.
    pub async fn start(self) -> Result<Stack> {
        let brains = u64::try_from(self.brains)?;
        let stack = Stack::start(self).await?;
        stack.ready().await?;
        stack.linked(brains).await?;
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
