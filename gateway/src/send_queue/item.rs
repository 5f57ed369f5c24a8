//! One item of a send queue: how many bytes it counts, and how a delta grows by the delta that follows it.

use std::sync::Arc;

use chatbox_shared::proto::server_message::Message;
use chatbox_shared::proto::{AiDelta, ServerMessage};
use prost::Message as _;
use tungstenite::Utf8Bytes;

use super::event::SharedEvent;

/// What an item costs beside its text, in bytes.
const ITEM_BYTES: usize = 64;

/// An item that waits for the socket.
#[derive(Debug)]
pub(crate) enum Item {
    /// An event, and the receipt to send once the event was flushed (0: none).
    Event {
        /// Shared with the other connections that receive the event.
        event: Arc<SharedEvent>,
        /// The number of the receipt.
        receipt: u64,
    },
    /// Several deltas merged into one.
    Merged(Box<AiDelta>),
    /// The reply to a request.
    Reply {
        /// The number of the request.
        no: u32,
        /// The brain's answer. `None`: a bare acknowledgement.
        message: Option<Box<ServerMessage>>,
    },
    /// A frame of the gateway itself.
    Text(Utf8Bytes),
    /// A WebSocket ping.
    Ping,
}

impl Item {
    /// The bytes the item counts in the queue. Only [`Item::append`] may change the value while the item waits.
    pub(super) fn bytes(&self) -> usize {
        ITEM_BYTES
            + match self {
                Self::Event { event, .. } => event.size(),
                Self::Merged(delta) => delta.encoded_len(),
                Self::Reply { message, .. } => message.as_ref().map_or(0, |message| message.encoded_len()),
                Self::Text(text) => text.len(),
                Self::Ping => 0,
            }
    }

    /// Whether the item counts as an event.
    pub(super) fn is_event(&self) -> bool {
        matches!(self, Self::Event { .. } | Self::Merged(_))
    }

    /// The delta of this item, if another delta may be merged into it. An event with a receipt may not change.
    pub(super) fn mergeable(&self) -> Option<&AiDelta> {
        match self {
            Self::Event { event, receipt: 0 } => match event.message() {
                Message::AiDelta(delta) => Some(delta),
                _ => None,
            },
            Self::Merged(delta) => Some(delta),
            _ => None,
        }
    }

    /// Appends the text of `new` to a mergeable item.
    pub(super) fn append(&mut self, new: &AiDelta) {
        let count = new.count.max(1);
        if let Self::Merged(delta) = self {
            delta.count += count;
            delta.delta.push_str(&new.delta);
        } else if let Some(delta) = self.mergeable() {
            let mut delta = delta.clone();
            delta.count = delta.count.max(1) + count;
            delta.delta.push_str(&new.delta);
            *self = Self::Merged(Box::new(delta));
        }
    }
}

/// Whether `new` is the next delta of the same attempt of the same answer.
pub(super) fn continues(waiting: &AiDelta, new: &AiDelta) -> bool {
    waiting.seq == new.seq
        && waiting.attempt == new.attempt
        && waiting.index + u64::from(waiting.count.max(1)) == new.index
}
