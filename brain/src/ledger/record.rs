//! The reservation of a call and the record that replaces it.

use chatbox_shared::clock::Timestamp;

use super::call::{Call, CallFinish};
use crate::usage::{Price, TokenUsage};

/// The amounts reserved for a call until its record is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The call.
    pub call: Call,
    /// The most tokens the call is expected to use, prompt and answer.
    pub tokens: u64,
    /// The most the call is expected to cost, in billionths.
    pub cost: u64,
    /// chatbox's estimate of the prompt's tokens.
    pub input_estimate: u64,
    /// When another brain may settle the reservation, by the store's clock.
    pub expires_at: Timestamp,
}

/// The record of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// The call.
    pub call: Call,
    /// What the call used.
    pub usage: TokenUsage,
    /// How the call ended.
    pub finish: CallFinish,
    /// The error class of a failed call, such as `timeout`.
    pub error: Option<String>,
    /// Milliseconds from the request to the first text.
    pub first_token_ms: Option<u64>,
    /// Milliseconds from the request to the end.
    pub total_ms: u64,
    /// The cost in billionths of the currency of the prices; `None` where the model has no price.
    pub cost: Option<u64>,
}

impl Reservation {
    /// The record of a call whose brain did not write it, estimated from the reservation and `output` tokens of an
    /// answer. The price is today's.
    pub fn lost(&self, output: u64, finish: CallFinish, price: Option<Price>, now: Timestamp) -> UsageRecord {
        self.record(TokenUsage { input: self.input_estimate, cached: 0, output, estimated: true }, finish, price, now)
    }

    /// The record of a call with this usage.
    pub fn record(&self, usage: TokenUsage, finish: CallFinish, price: Option<Price>, now: Timestamp) -> UsageRecord {
        UsageRecord {
            call: self.call.clone(),
            usage,
            finish,
            error: None,
            first_token_ms: None,
            total_ms: u64::try_from(now.since(self.call.started_at).as_millis()).unwrap_or(u64::MAX),
            cost: price.map(|price| price.cost(&usage)),
        }
    }
}
