//! The account of a user and day: what is used, what is reserved, and what the allowance has room for.

use super::day::Day;
use super::record::{Reservation, UsageRecord};
use crate::usage::TokenUsage;

/// What a user may use per day. `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// Tokens of prompts and answers.
    pub tokens: Option<u64>,
    /// Cost, in billionths.
    pub cost: Option<u64>,
}

/// A sum over records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageSum {
    /// The number of records.
    pub calls: u64,
    /// Tokens of prompts, the cached ones included.
    pub input: u64,
    /// Tokens of prompts that came from a provider's cache.
    pub cached: u64,
    /// Tokens of answers.
    pub output: u64,
    /// Cost in billionths.
    pub cost: u64,
}

/// The account of a user for one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayUsage {
    /// The day.
    pub day: Day,
    /// The sum of the day's records.
    pub used: UsageSum,
    /// Tokens reserved by unsettled calls.
    pub reserved_tokens: u64,
    /// Cost reserved by unsettled calls.
    pub reserved_cost: u64,
}

impl Allowance {
    /// Whether the reservation fits into the rest of the account.
    pub fn admits(&self, account: &DayUsage, reservation: &Reservation) -> bool {
        let tokens = account.used.tokens().saturating_add(account.reserved_tokens).saturating_add(reservation.tokens);
        let cost = account.used.cost.saturating_add(account.reserved_cost).saturating_add(reservation.cost);
        self.tokens.is_none_or(|limit| tokens <= limit) && self.cost.is_none_or(|limit| cost <= limit)
    }
}

impl DayUsage {
    /// The JSON that operators read.
    pub fn to_json(&self) -> serde_json::Value {
        let UsageSum { calls, input, cached, output, cost } = self.used;
        serde_json::json!({
            "day": self.day.to_string(),
            "calls": calls,
            "input_tokens": input,
            "cached_tokens": cached,
            "output_tokens": output,
            "cost_billionths": cost,
            "reserved_tokens": self.reserved_tokens,
            "reserved_cost_billionths": self.reserved_cost,
        })
    }

    /// The account of a day without any call.
    pub fn unused(day: Day) -> Self {
        Self { day, used: UsageSum::default(), reserved_tokens: 0, reserved_cost: 0 }
    }
}

impl UsageSum {
    /// Tokens of prompts and answers.
    pub fn tokens(&self) -> u64 {
        self.input + self.output
    }

    /// The sum of one record.
    pub fn of(record: &UsageRecord) -> Self {
        let TokenUsage { input, cached, output, .. } = record.usage;
        Self { calls: 1, input, cached, output, cost: record.cost.unwrap_or(0) }
    }
}
