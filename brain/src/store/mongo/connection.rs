//! The connection to a deployment: the setup of the driver, and the refusal of a server without majority writes.

use std::fmt;
use std::time::Duration;

use bson::{Document, doc};
use chatbox_shared::clock::Timestamp;
use mongodb::options::{Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern};
use mongodb::{Client, Database};
use secrecy::{ExposeSecret, SecretString};

use super::error::from_mongo;
use super::uri;
use crate::sabotage::{self, Sabotage};
use crate::store::{StoreError, StoreResult};

/// Detection of a dead member: a heartbeat at this interval, each with the limit `CONNECT_TIMEOUT`.
const HEARTBEAT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The settings of the connection.
#[derive(Clone)]
pub struct MongoOptions {
    /// The connection string. Its write and read concerns are overridden.
    pub uri: SecretString,
    /// The database's name.
    pub database: String,
    /// Connections per server at most.
    pub max_pool_size: u32,
    /// Accept a server that is not a member of a replica set. For development.
    pub allow_standalone: bool,
    /// Time limit of one operation. The driver has none: `store::observed` enforces it, and the limits set here (server
    /// selection, query time, write concern) are shorter.
    pub timeout: Duration,
}

/// Hides the connection string, which may contain a password.
impl fmt::Debug for MongoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoOptions")
            .field("database", &self.database)
            .field("max_pool_size", &self.max_pool_size)
            .field("allow_standalone", &self.allow_standalone)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The driver's handle and its settings.
pub(super) struct Connection {
    pub(super) database: Database,
    allow_standalone: bool,
    /// Slightly less than the limit of one operation, so that the server's own error arrives first.
    pub(super) limit: Duration,
}

impl Connection {
    /// Sets the driver up. It connects at first use.
    pub(super) async fn new(options: MongoOptions) -> StoreResult<Self> {
        let limit = options.timeout.mul_f64(0.9);
        let string = uri::parse(options.uri.expose_secret())
            .map_err(|reason| StoreError::Refused(format!("the MongoDB connection string: {reason}")))?;
        // Looks up the DNS records of a mongodb+srv:// string.
        let mut client = ClientOptions::parse(string).await.map_err(from_mongo)?;
        client.app_name = Some("chatbox-brain".into());
        client.max_pool_size = Some(options.max_pool_size);
        client.server_selection_timeout = Some(limit);
        client.connect_timeout = Some(CONNECT_TIMEOUT.min(limit));
        client.heartbeat_freq = Some(HEARTBEAT);
        client.retry_writes = Some(true);
        client.retry_reads = Some(true);
        let acknowledged_by =
            if sabotage::is_on(Sabotage::W1) { Acknowledgment::Nodes(1) } else { Acknowledgment::Majority };
        client.write_concern = Some(WriteConcern::builder().w(acknowledged_by).journal(true).w_timeout(limit).build());
        client.read_concern = Some(ReadConcern::majority());
        client.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        let client = Client::with_options(client).map_err(|error| match from_mongo(error) {
            StoreError::Refused(_) => {
                StoreError::Refused("the MongoDB connection string has contradictory options".into())
            }
            other => other,
        })?;
        let database = client.database(&options.database);
        Ok(Self { database, allow_standalone: options.allow_standalone, limit })
    }

    /// Asks the primary (or router) for its role and its time.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a standalone server where none is allowed: it has no majority and no retryable writes,
    /// so an acknowledged message could be lost.
    pub(super) async fn hello(&self) -> StoreResult<Timestamp> {
        let hello = self.database.run_command(doc! { "hello": 1 }).await.map_err(from_mongo)?;
        if !self.allow_standalone && !is_cluster(&hello) {
            return Err(StoreError::Refused(
                "the MongoDB server is standalone; chatbox needs a replica set (of at least one member) or a sharded cluster, \
                 or store.mongodb.allow_standalone = true for development"
                    .into(),
            ));
        }
        let time =
            hello.get_datetime("localTime").map_err(|_| StoreError::Corrupt("the server reports no time".into()))?;
        Ok(Timestamp(time.timestamp_millis()))
    }
}

fn is_cluster(hello: &Document) -> bool {
    hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid")
}
