//! One event on its way to many sockets: decoded once, turned into JSON once, by the first connection that sends it.

use std::sync::OnceLock;

use bytes::Bytes;
use chatbox_shared::proto::ServerMessage;
use chatbox_shared::proto::server_message::Message;
use prost::Message as _;
use tungstenite::Utf8Bytes;

use super::frame;

/// A message of the brain that any number of connections share.
#[derive(Debug)]
pub(crate) struct Event {
    message: Message,
    size: usize,
    text: OnceLock<Option<Utf8Bytes>>,
}

impl Event {
    /// Decodes a [`ServerMessage`]. `None` where it cannot be decoded, or is of a kind that this build does not know.
    pub(crate) fn decode(encoded: &Bytes) -> Option<Self> {
        let message = ServerMessage::decode(encoded.clone())
            .inspect_err(|error| tracing::error!(%error, "a message from a brain cannot be decoded"))
            .ok()?;
        Some(Self { message: message.message?, size: encoded.len(), text: OnceLock::new() })
    }

    /// What it says.
    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    /// About as many bytes as its JSON has; what a queue counts.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Its JSON, without a `reply_to`.
    pub(crate) fn text(&self) -> Option<Utf8Bytes> {
        self.text.get_or_init(|| frame::encode(&self.message, None)).clone()
    }
}
