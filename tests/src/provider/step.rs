//! The steps of a script. `Begin`, `Delta`, `Finish` and others become events of the protocol of the request, so one script
//! serves all three protocols; `Bytes` are sent as they are.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::fault::Fault;
use super::gate::Gate;
use super::json;

/// One step. In JSON: `"begin"`, `{"delta": "text"}`, `{"finish": {"input": 1, "output": 2}}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Sends these bytes as one piece. In JSON a string, or `{"base64": ".."}`.
    Bytes(#[serde(deserialize_with = "json::bytes")] Bytes),
    /// Sends what comes before the first text.
    Begin,
    /// As `Begin`, with a usage: only Anthropic sends one here.
    BeginWith(Usage),
    /// Sends a piece of text.
    Delta(String),
    /// Sends a piece of reasoning, which does not belong to the answer.
    Reasoning {
        /// The reasoning.
        text: String,
        /// The field it comes in from servers like OpenAI's; `reasoning` if not set.
        field: Option<String>,
    },
    /// Sends the keep-alive of the protocol.
    KeepAlive,
    /// Sends keep-alives at this pace, this many or without end.
    KeepAlives {
        /// Between two of them.
        #[serde(rename = "every_ms", deserialize_with = "json::millis")]
        every: Duration,
        /// How many; `None` goes on until the client leaves.
        count: Option<u64>,
    },
    /// Sends pieces of text with the time inside ([`super::stamp`]) at this pace, this many or without end.
    Stamps {
        /// Between two of them.
        #[serde(rename = "every_ms", deserialize_with = "json::millis")]
        every: Duration,
        /// How many; `None` goes on until the client leaves or the gate opens.
        count: Option<u64>,
        /// Ends them.
        #[serde(skip)]
        until: Option<Gate>,
    },
    /// Sends the same piece of text until the client leaves; with no time between as fast as the client reads.
    Endless {
        /// Between two of them.
        #[serde(rename = "every_ms", deserialize_with = "json::millis")]
        every: Duration,
        /// The piece; `on and on ` if not set.
        text: Option<String>,
    },
    /// Sends one piece of text of this many MiB, in one event on one line.
    HugeLine {
        /// 1 to 64.
        #[serde(deserialize_with = "json::mib")]
        mib: u32,
    },
    /// Sends the usage and the end, well-formed.
    Finish {
        /// Tokens of the prompt.
        input: u64,
        /// Tokens of the answer.
        output: u64,
    },
    /// Sends the end without any usage.
    FinishWithoutUsage,
    /// Sends the end with these details.
    FinishWith(Finish),
    /// Sends a fault in the middle of the stream.
    Fault(Fault),
    /// Sends a fault as the body of a refusal: [`super::Script::refuse`] makes it.
    #[serde(skip)]
    Refusal(Fault),
    /// Sends any event.
    Event {
        /// The `event:` line.
        name: Option<String>,
        /// The data: a string as it is, anything else as JSON.
        data: Option<Value>,
    },
    /// Sends a chunk of OpenAI: `id`, `object`, `created`, `model` and these fields.
    Chunk(Value),
    /// Sends an event of Dify with the ids of this answer.
    Dify {
        /// Its name.
        event: String,
        /// Further fields.
        #[serde(default)]
        with: Value,
    },
    /// Sends a whole reply in JSON: [`super::Script::whole`] makes it.
    Whole(String),
    /// Does nothing for a while.
    #[serde(rename = "wait_ms")]
    Wait(#[serde(deserialize_with = "json::millis")] Duration),
    /// Does nothing until the test opens the gate.
    #[serde(skip)]
    Hold(Gate),
    /// Does nothing until the client leaves; a stop call does not end it.
    Stall,
    /// Breaks the connection in the middle of the body.
    Cut,
    /// Breaks the connection with a TCP reset.
    Reset,
    /// Ends the sending half of the connection in the middle of the body, and listens on until the client leaves.
    HalfClose,
}

impl Step {
    /// Does it send anything?
    pub(super) fn speaks(&self) -> bool {
        !matches!(self, Self::Wait(_) | Self::Hold(_) | Self::Stall | Self::Cut | Self::Reset | Self::HalfClose)
    }
}

/// Token counts as a provider sends them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// Of the prompt, those read from a cache or written to one included.
    pub input: u64,
    /// Of those, read from a cache.
    pub cached: u64,
    /// Of those, written to a cache. Only Anthropic sends this number.
    pub cache_written: u64,
    /// Of the answer.
    pub output: u64,
}

impl Usage {
    /// Without any cache.
    pub fn new(input: u64, output: u64) -> Self {
        Self { input, output, ..Self::default() }
    }
}

/// The end of an answer, in detail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Finish {
    /// `None` sends no usage.
    pub usage: Option<Usage>,
    /// The finish reason or stop reason; `None` is the usual one. Dify has none.
    pub reason: Option<String>,
    /// Text in the chunk that ends it, as vLLM may send.
    pub text: Option<String>,
    /// Leaves out what comes after the reason and the usage: `[DONE]`, or `message_stop`.
    pub unterminated: bool,
}
