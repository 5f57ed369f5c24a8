//! The ledger: one record per provider call, written once and never changed, whatever happened to the call or to its
//! brain.
//!
//! Before a call, the most it can use is reserved in the account of its user and day. The account holds used and
//! reserved amounts; a reservation that exceeds the allowance is refused, so concurrent calls cannot exceed it
//! together. After the call its record is inserted under the call's id, and the reservation is replaced by the used
//! amounts. The reservation of a dead brain is settled by another brain, from an estimate. The first record of a call
//! id counts.

use std::fmt;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{CallId, Seq, SessionId, UserId};

use crate::usage::{FinishReason, Price, TokenUsage};

/// A provider call before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The id of the call.
    pub id: CallId,
    /// The user who is charged: the session's owner.
    pub user: UserId,
    /// The session.
    pub session: SessionId,
    /// The purpose.
    pub purpose: Purpose,
    /// The seq of the answer in the log; 0 for other purposes.
    pub seq: Seq,
    /// The attempt of the answer; 0 for other purposes.
    pub attempt: u32,
    /// The configured id of the model.
    pub model_id: String,
    /// The provider's protocol: `openai`, `anthropic`, `dify`, `demo`.
    pub provider: String,
    /// When the call began, by the store's clock. Its day (UTC) is the day that is charged.
    pub started_at: Timestamp,
}

/// The purpose of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// An answer.
    Answer,
    /// A session's name.
    Name,
}

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

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallFinish {
    /// The model was done.
    Stop,
    /// A token limit cut it.
    Length,
    /// The provider's content rules cut it.
    ContentFilter,
    /// A participant stopped it.
    Stopped,
    /// A human took over, or the provider's own operator stopped it.
    Interrupted,
    /// The call failed; another call may have followed.
    Failed,
    /// Its brain stopped and handed the answer over to another brain.
    HandedOver,
    /// Its brain died, or was paused for so long that another brain took over. The numbers are estimates.
    Lost,
}

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

/// A day of the calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(time::Date);

impl Call {
    /// The day that is charged.
    pub fn day(&self) -> Day {
        Day::of(self.started_at)
    }
}

impl Purpose {
    /// The stable name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Name => "name",
        }
    }

    /// The purpose with this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Answer, Self::Name].into_iter().find(|purpose| purpose.as_str() == text)
    }
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

impl CallFinish {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Stop,
        Self::Length,
        Self::ContentFilter,
        Self::Stopped,
        Self::Interrupted,
        Self::Failed,
        Self::HandedOver,
        Self::Lost,
    ];

    /// The stable name in the store and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::HandedOver => "handed_over",
            Self::Lost => "lost",
        }
    }

    /// The ending of a call whose answer finished for this reason.
    pub fn of(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop => Self::Stop,
            FinishReason::Length => Self::Length,
            FinishReason::Stopped => Self::Stopped,
            FinishReason::Interrupted => Self::Interrupted,
            FinishReason::ContentFilter => Self::ContentFilter,
        }
    }

    /// The ending with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|finish| finish.as_str() == text)
    }
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

impl Day {
    /// The day of this time.
    pub fn of(at: Timestamp) -> Self {
        let at = time::OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000));
        Self(at.unwrap_or(time::OffsetDateTime::UNIX_EPOCH).date())
    }

    /// When the next day begins and the quota is renewed.
    pub fn end(self) -> Timestamp {
        let next = self.0.next_day().unwrap_or(self.0);
        Timestamp(next.midnight().assume_utc().unix_timestamp() * 1000)
    }

    /// The day after; `None` at the end of the calendar.
    pub fn next(self) -> Option<Self> {
        self.0.next_day().map(Self)
    }

    /// Parses a day as [`Day`] displays it.
    pub fn parse(text: &str) -> Option<Self> {
        time::Date::parse(text, time::macros::format_description!("[year]-[month]-[day]")).ok().map(Self)
    }
}

/// Such as 2026-11-24, which sorts as the days do.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), u8::from(self.0.month()), self.0.day())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_midnight_utc() {
        let late = Timestamp(1_795_564_799_999);
        let day = Day::of(late);
        assert_eq!(day.to_string(), "2026-11-24");
        assert_eq!(day.end(), Timestamp(1_795_564_800_000));
        assert_eq!(Day::of(day.end()).to_string(), "2026-11-25");
        assert_eq!(Day::parse("2026-11-24"), Some(day));
        assert_eq!(Day::parse("24.11.2026"), None);
        assert!(Day::of(Timestamp(-1)).to_string().as_str() < "1970");
    }

    #[test]
    fn names_lead_back() {
        for finish in CallFinish::ALL {
            assert_eq!(CallFinish::parse(finish.as_str()), Some(finish));
        }
        for purpose in [Purpose::Answer, Purpose::Name] {
            assert_eq!(Purpose::parse(purpose.as_str()), Some(purpose));
        }
    }
}
