//! One event on its way to many sockets: decoded once, turned into JSON once, by the first connection that sends it.

use std::sync::OnceLock;

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
    /// `None` where the message is empty: a fault of the brain, or a kind this build does not know yet.
    pub(crate) fn new(message: ServerMessage) -> Option<Self> {
        let size = message.encoded_len();
        Some(Self { message: message.message?, size, text: OnceLock::new() })
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
