//! The account of every provider call: a reservation before the call, a record after it.

use std::time::Duration;

use async_trait::async_trait;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::CallId;

use super::ErrorClass;
use super::model::Model;
use crate::ledger::{CallFinish, Reservation};
use crate::metrics::ProviderCall;
use crate::usage::TokenUsage;

/// Reserves and records calls.
#[async_trait]
pub trait Meter: Send + Sync + 'static {
    /// The reservation for a call that is about to be made.
    fn plan(&self, call: PlannedCall<'_>) -> Reservation;

    /// Makes the reservation. The call is made only if this succeeds; then [`Meter::end`] is called exactly once. May
    /// be repeated with the same reservation.
    async fn begin(&self, call: &Reservation) -> Result<(), CallDenied>;

    /// Records the end of the call. Returns when the record is written, or when this process cannot write it any more.
    async fn end(&self, call: &Reservation, model: &Model, outcome: CallOutcome);

    /// Withdraws the reservation of a call that is not made, where it is unknown whether the reservation exists.
    async fn withdraw(&self, call: &Reservation);
}

/// A call before it is made.
#[derive(Clone, Copy)]
pub struct PlannedCall<'a> {
    /// The id of the call.
    pub id: CallId,
    /// The model that is called.
    pub model: &'a Model,
    /// chatbox's estimate of the prompt's tokens.
    pub input_estimate: u64,
    /// The longest the call may take.
    pub time: Duration,
    /// How often the text of the answer will have been started again within this turn when this call's text begins.
    pub restarts: u32,
}

/// Why a call may not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallDenied {
    /// The user's quota is used up until this time; `None` where the call exceeds the quota of any day.
    Quota(Option<Timestamp>),
    /// The ledger is unavailable; no call is made without it.
    Unavailable,
    /// The ledger refused for a reason that a retry does not change.
    Broken,
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallOutcome {
    /// What it used.
    pub usage: TokenUsage,
    /// How it ended.
    pub finish: CallFinish,
    /// The error class of a failed call.
    pub error: Option<ErrorClass>,
    /// From the request to the first text.
    pub first_token: Option<Duration>,
    /// From the request to the end.
    pub total: Duration,
}

impl CallOutcome {
    /// The call of the model with this id, as metrics count it.
    pub fn counted<'a>(&self, model: &'a str) -> ProviderCall<'a> {
        let TokenUsage { input, cached, output, .. } = self.usage;
        let error = self.error.map_or("", ErrorClass::as_str);
        ProviderCall { model, finish: self.finish.as_str(), error, input, cached, output }
    }
}
