//! The connection to a deployment: how the driver is set up, and the refusal of a server that cannot keep our promises.

use std::fmt;
use std::time::Duration;

use bson::{Document, doc};
use chatbox_shared::clock::Timestamp;
use mongodb::options::{Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern};
use mongodb::{Client, Database};
use secrecy::{ExposeSecret, SecretString};

use super::error::from_mongo;
use crate::sabotage::{self, Sabotage};
use crate::store::{StoreError, StoreResult};

/// How a dead member is noticed: asked this often, and given up after `CONNECT_TIMEOUT`.
const HEARTBEAT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Where the database is and how to use it.
#[derive(Clone)]
pub struct MongoOptions {
    /// The connection string. Write and read concerns in it are overruled.
    pub uri: SecretString,
    /// The database's name.
    pub database: String,
    /// Connections per server at most.
    pub max_pool_size: u32,
    /// Accept a server that is no member of a replica set. For development.
    pub allow_standalone: bool,
    /// How long one operation may take. The driver has no such limit of its own: `store::observed` keeps it, and the
    /// limits set here (finding a server, running a query, waiting for a majority) end before it.
    pub timeout: Duration,
}

/// Never shows the connection string, which may hold a password.
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

/// The driver's handle and what was said about it.
pub(super) struct Connection {
    pub(super) database: Database,
    allow_standalone: bool,
    /// A little less than one operation may take, so that the server's own word arrives before our limit.
    pub(super) limit: Duration,
}

impl Connection {
    /// Sets the driver up. It connects when first used.
    pub(super) async fn new(options: MongoOptions) -> StoreResult<Self> {
        let limit = options.timeout.mul_f64(0.9);
        let mut client = ClientOptions::parse(options.uri.expose_secret()).await.map_err(|error| match from_mongo(error) {
            StoreError::Unavailable(text) => StoreError::Unavailable(text),
            // The driver's own text may quote the string, and with it the password.
            _ => StoreError::Refused(
                "the MongoDB connection string cannot be read; expected mongodb:// or mongodb+srv://, with user and password \
                 percent-encoded"
                    .into(),
            ),
        })?;
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
                StoreError::Refused("the MongoDB connection string has options that contradict each other".into())
            }
            other => other,
        })?;
        let database = client.database(&options.database);
        Ok(Self { database, allow_standalone: options.allow_standalone, limit })
    }

    /// Asks the primary (or router) who it is and what time it is.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a standalone server where none is allowed: it has no majority and no retryable writes,
    /// so an acknowledged message could be lost.
    pub(super) async fn hello(&self) -> StoreResult<Timestamp> {
        let hello = self.database.run_command(doc! { "hello": 1 }).await.map_err(from_mongo)?;
        if !self.allow_standalone && !is_cluster(&hello) {
            return Err(StoreError::Refused(
                "the MongoDB server is a standalone one; a replica set (of one member at least) or a sharded cluster is needed, \
                 or store.mongodb.allow_standalone for development"
                    .into(),
            ));
        }
        let time =
            hello.get_datetime("localTime").map_err(|_| StoreError::Corrupt("the server tells no time".into()))?;
        Ok(Timestamp(time.timestamp_millis()))
    }
}

fn is_cluster(hello: &Document) -> bool {
    hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid")
}
