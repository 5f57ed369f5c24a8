//! Accounts for the calls of a session: reserves usage before each call and records it after the call, even if the store is
//! away for a while.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chatbox_shared::ids::Seq;

use super::journal::millis;
use super::turns::Turns;
use crate::ledger::{Allowance, Call, CallFinish, DayUsage, Purpose, Reservation, UsageRecord};
use crate::llm::meter::{CallDenied, CallOutcome, Meter, PlannedCall};
use crate::llm::model::Model;
use crate::metrics::Metrics;
use crate::session::handle::Session;
use crate::session::registry::Sessions;
use crate::store::StoreError;
use crate::tunables::LiveConfig;
use crate::usage::TokenUsage;

/// A reservation expires this long after its call must have ended.
const GRACE: Duration = Duration::from_secs(30);
/// The first wait before a store that could not be reached is tried again. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accounts for the calls for one answer or one name.
pub(super) struct SessionMeter {
    sessions: Arc<Sessions>,
    live_config: Arc<LiveConfig>,
    metrics: Arc<Metrics>,
    session: Arc<Session>,
    purpose: Purpose,
    seq: Seq,
    attempt: u32,
}

/// The meter for the answer at `seq`, whose attempt is `attempt` when its turn begins on this brain.
pub(super) fn answer_meter(turns: &Turns, session: &Arc<Session>, seq: Seq, attempt: u32) -> SessionMeter {
    meter(turns, session, Purpose::Answer, seq, attempt)
}

/// The meter for the name of a session.
pub(super) fn name_meter(turns: &Turns, session: &Arc<Session>) -> SessionMeter {
    meter(turns, session, Purpose::Name, 0, 0)
}

fn meter(turns: &Turns, session: &Arc<Session>, purpose: Purpose, seq: Seq, attempt: u32) -> SessionMeter {
    SessionMeter {
        sessions: Arc::clone(&turns.sessions),
        live_config: Arc::clone(&turns.live_config),
        metrics: Arc::clone(&turns.metrics),
        session: Arc::clone(session),
        purpose,
        seq,
        attempt,
    }
}

impl SessionMeter {
    fn call(&self, planned: &PlannedCall<'_>) -> Call {
        Call {
            id: planned.id,
            user: self.session.owner.clone(),
            session: self.session.id,
            purpose: self.purpose,
            seq: self.seq,
            attempt: if self.purpose == Purpose::Answer { self.attempt + planned.restarts } else { 0 },
            model_id: planned.model.id.clone(),
            provider: planned.model.kind.as_str().to_owned(),
            started_at: self.sessions.now(),
        }
    }
}

#[async_trait]
impl Meter for SessionMeter {
    fn plan(&self, planned: PlannedCall<'_>) -> Reservation {
        let model = planned.model;
        let (input, output) = (planned.input_estimate, model.max_output_tokens);
        let largest = TokenUsage { input, cached: 0, output, estimated: true };
        let call = self.call(&planned);
        Reservation {
            tokens: input.saturating_add(output),
            cost: model.cost(&largest).unwrap_or(0),
            input_estimate: input,
            expires_at: call.started_at.plus(planned.time + GRACE),
            call,
        }
    }

    async fn begin(&self, reservation: &Reservation) -> Result<(), CallDenied> {
        let allowance = self.live_config.get().allowance;
        match self.sessions.store.reserve_usage(reservation, &allowance).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.metrics.quota_refused();
                let day = reservation.call.day();
                let ever = allowance.admits(&DayUsage::unused(day), reservation);
                Err(CallDenied::Quota(ever.then(|| day.end())))
            }
            Err(error @ StoreError::Unavailable(_)) => {
                tracing::debug!(session = %self.session.id, %error, "a call was not made, because it cannot be accounted for");
                Err(CallDenied::Unavailable)
            }
            Err(error) => {
                tracing::error!(session = %self.session.id, %error, "the account of a user cannot be used");
                Err(CallDenied::Broken)
            }
        }
    }

    async fn end(&self, reservation: &Reservation, model: &Model, outcome: CallOutcome) {
        self.metrics.provider_call(&outcome.counted(&model.id));
        let record = UsageRecord {
            call: reservation.call.clone(),
            usage: outcome.usage,
            finish: outcome.finish,
            error: outcome.error.map(|class| class.as_str().to_owned()),
            first_token_ms: outcome.first_token.map(millis),
            total_ms: millis(outcome.total),
            cost: model.cost(&outcome.usage),
        };
        record_usage(&self.sessions, &record).await;
    }

    async fn withdraw(&self, reservation: &Reservation) {
        // Whether the reservation was stored is not known. Reserving again makes sure of it, so that it can be taken back.
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.sessions.store.reserve_usage(reservation, &Allowance::default()).await {
            if !matches!(error, StoreError::Unavailable(_)) || self.sessions.lifecycle.stopping().is_cancelled() {
                tracing::debug!(session = %self.session.id, %error, "a reservation was not withdrawn; it will expire");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let nothing = TokenUsage::default();
        let record = reservation.record(nothing, CallFinish::Stopped, None, reservation.call.started_at);
        record_usage(&self.sessions, &record).await;
    }
}

/// Records a call, however long the store takes. If the process ends before, another brain records the call once its
/// reservation has expired.
async fn record_usage(sessions: &Sessions, record: &UsageRecord) {
    let mut pause = FIRST_PAUSE;
    loop {
        match sessions.store.record_usage(record).await {
            Ok(_) => return,
            Err(StoreError::Unavailable(_)) if !sessions.lifecycle.stopping().is_cancelled() => {}
            Err(error) => {
                let call = record.call.id;
                tracing::error!(session = %record.call.session, %call, %error, "a call was not recorded");
                return;
            }
        }
        tokio::select! {
            () = sessions.lifecycle.stopping().cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
