//! What is told about every call of a provider: before it is made, so that it can be refused, and once it has ended.

use std::time::Duration;

use async_trait::async_trait;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::CallId;

use super::ErrorClass;
use super::model::Model;
use crate::ledger::{CallFinish, Reservation};
use crate::metrics::ProviderCall;
use crate::usage::TokenUsage;

/// Keeps account of calls.
#[async_trait]
pub trait Meter: Send + Sync + 'static {
    /// What is to be set aside for a call that is about to be made.
    fn plan(&self, call: PlannedCall<'_>) -> Reservation;

    /// Sets it aside. The call is made only if this succeeds, and then [`Meter::end`] is called once for it. May be
    /// repeated with the same reservation.
    async fn begin(&self, call: &Reservation) -> Result<(), CallDenied>;

    /// The call has ended. Returns when that is recorded, or never will be by this process.
    async fn end(&self, call: &Reservation, model: &Model, outcome: CallOutcome);

    /// The call is not made after all, and whether something is set aside for it is not known.
    async fn withdraw(&self, call: &Reservation);
}

/// A call before it is made.
#[derive(Clone, Copy)]
pub struct PlannedCall<'a> {
    /// Its id.
    pub id: CallId,
    /// The model that is called.
    pub model: &'a Model,
    /// Tokens of its prompt, as far as chatbox can tell.
    pub input_estimate: u64,
    /// How long the call may take.
    pub time: Duration,
    /// How many times the text of the answer has begun anew within this turn when this call speaks.
    pub restarts: u32,
}

/// Why a call may not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallDenied {
    /// What the user may use is used up until then; `None`: this call is too large for any day.
    Quota(Option<Timestamp>),
    /// The accounts cannot be reached; nothing is called without them.
    Unavailable,
    /// The account cannot be used, and asking again does not mend it.
    Broken,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallOutcome {
    /// What it used.
    pub usage: TokenUsage,
    /// How it ended.
    pub finish: CallFinish,
    /// Why, if it failed.
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
