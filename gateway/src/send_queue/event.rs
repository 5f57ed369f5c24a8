//! One event for any number of sockets. It is decoded once, and encoded as JSON once, by the first connection that
//! sends it.

use std::sync::OnceLock;

use bytes::Bytes;
use chatbox_shared::proto::ServerMessage;
use chatbox_shared::proto::server_message::Message;
use prost::Message as _;
use tungstenite::Utf8Bytes;

use crate::frame;

/// A message of the brain that several connections share.
#[derive(Debug)]
pub(crate) struct SharedEvent {
    message: Message,
    size: usize,
    text: OnceLock<Option<Utf8Bytes>>,
}

impl SharedEvent {
    /// Decodes a [`ServerMessage`]. `None` if it cannot be decoded, or if this build does not know its type.
    pub(crate) fn decode(encoded: &Bytes) -> Option<Self> {
        let message = ServerMessage::decode(encoded.clone())
            .inspect_err(|error| tracing::error!(%error, "cannot decode a message from a brain"))
            .ok()?;
        Some(Self { message: message.message?, size: encoded.len(), text: OnceLock::new() })
    }

    /// The decoded message.
    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    /// The size of the encoded message in bytes, close to that of its JSON.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The event as JSON, without a `reply_to`.
    pub(crate) fn text(&self) -> Option<Utf8Bytes> {
        self.text.get_or_init(|| frame::encode(&self.message, None)).clone()
    }
}
