//! One message from the server: its raw text and its JSON.

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::Instant;

/// One received frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The text of the WebSocket frame, byte for byte.
    pub raw: String,
    /// The same, parsed.
    pub json: Value,
    /// When it was read from the socket.
    pub at: Instant,
}

impl Frame {
    /// Reads a frame's text.
    ///
    /// # Errors
    /// It is not one JSON object.
    pub fn parse(raw: String) -> Result<Self> {
        let json: Value = serde_json::from_str(&raw).with_context(|| format!("a frame that is not JSON: {raw}"))?;
        json.as_object().with_context(|| format!("a frame that is not an object: {raw}"))?;
        Ok(Self { raw, json, at: Instant::now() })
    }

    /// Its `type`.
    pub fn kind(&self) -> &str {
        self.text("/type")
    }

    /// Is it of this type?
    pub fn is(&self, kind: &str) -> bool {
        self.kind() == kind
    }

    /// The value at a JSON pointer, null where there is none.
    pub fn at(&self, pointer: &str) -> &Value {
        self.json.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The text at a JSON pointer, empty where there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    /// The whole number at a JSON pointer.
    pub fn number(&self, pointer: &str) -> Option<u64> {
        self.at(pointer).as_u64()
    }
}
