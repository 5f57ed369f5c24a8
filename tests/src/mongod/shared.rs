//! The server that all tests of a run share. `shared-mongod`, a set-up script of nextest, starts it and names it in the
//! environment. Without that variable (plain `cargo test`) each caller gets a server of its own.

use std::sync::Arc;

use anyhow::Result;

use super::Mongod;

/// Holds the connection string of the shared server.
pub const URI: &str = "CHATBOX_MONGODB_URI";

/// A server in which a test may use databases of its own, and which it must not stop.
#[derive(Debug, Clone)]
pub struct SharedServer {
    uri: String,
    own: Option<Arc<Mongod>>,
}

impl SharedServer {
    /// The connection string.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The server itself, where it runs for this caller alone: it ends with the last copy.
    pub fn own(&self) -> Option<Arc<Mongod>> {
        self.own.clone()
    }
}

/// The shared server of this run, or a new one.
///
/// # Errors
/// There is none, and none can be started.
pub async fn shared() -> Result<SharedServer> {
    if let Some(uri) = std::env::var(URI).ok().filter(|uri| !uri.is_empty()) {
        return Ok(SharedServer { uri, own: None });
    }
    let server = Mongod::start().await?;
    Ok(SharedServer { uri: server.uri(), own: Some(Arc::new(server)) })
}
