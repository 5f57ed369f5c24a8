//! The calls of brains that are gone and did not get to record them. What such a call used is told by the answer it was for,
//! as far as that was saved.

use std::sync::Arc;

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::ErrorCode;

use super::Turns;
use crate::ledger::{CallFinish, Purpose, Reservation, UsageRecord};
use crate::session::Session;
use crate::session::entry::{Entry, EntryState};
use crate::store::{StoreError, StoreResult};

/// Reservations settled in one round.
const ROUND: u32 = 100;

impl Turns {
    /// Settles reservations that have expired. One that cannot be settled keeps nobody else from it.
    pub(super) async fn settle_expired(&self, now: Timestamp) -> StoreResult<()> {
        for reservation in self.sessions.store.expired_reservations(now, ROUND).await? {
            if let Err(error) = self.settle_reservation(&reservation, now).await {
                let call = reservation.call.id;
                tracing::warn!(session = %reservation.call.session, %call, %error, "a lost call was not recorded");
            }
        }
        Ok(())
    }

    async fn settle_reservation(&self, reservation: &Reservation, now: Timestamp) -> StoreResult<()> {
        let call = &reservation.call;
        let session = match self.sessions.get(call.session).await {
            Ok(session) => session,
            Err(failure) if failure.code == ErrorCode::StorageUnavailable => {
                return Err(StoreError::Unavailable("the session could not be read".into()));
            }
            // Its key is missing: nothing is known but the prompt.
            Err(_) => None,
        };
        let row = match &session {
            Some(session) if call.purpose == Purpose::Answer => self.sessions.store.entry(session.id, call.seq).await?,
            _ => None,
        };
        let entry = session.as_ref().zip(row).map(|(session, row)| session.unseal(row));
        self.sessions.store.record_usage(&self.lost(reservation, entry.as_ref(), now)).await?;
        match session {
            Some(session) => self.sessions.refresh_usage(&session).await,
            None => {
                let usage = self.sessions.store.session_usage(call.session).await?;
                self.sessions.store.save_session_usage(call.session, &usage).await?;
            }
        }
        Ok(())
    }

    /// Settles what was under way for an answer when its owner was lost. What this leaves, expires and is found.
    pub(super) async fn settle_lost(&self, session: &Arc<Session>, lost: &Entry) {
        if let Err(error) = self.try_settle_lost(session, lost).await {
            tracing::debug!(session = %session.id, %error, "calls of a lost owner wait for their reservations to expire");
        }
    }

    async fn try_settle_lost(&self, session: &Arc<Session>, lost: &Entry) -> Result<(), StoreError> {
        let open = self.sessions.store.open_reservations(&session.owner).await?;
        let answer = (session.id, lost.meta.seq, Purpose::Answer);
        let of_answer = open.iter().filter(|it| (it.call.session, it.call.seq, it.call.purpose) == answer);
        for reservation in of_answer {
            let record = self.lost(reservation, Some(lost), self.sessions.now());
            self.sessions.store.record_usage(&record).await?;
        }
        self.sessions.refresh_usage(session).await;
        Ok(())
    }

    /// The record of a call, from the answer as it stands.
    fn lost(&self, reservation: &Reservation, entry: Option<&Entry>, now: Timestamp) -> UsageRecord {
        let call = &reservation.call;
        let tunables = self.current.get();
        let model = tunables.catalog.get(&call.model_id);
        let price = model.and_then(|model| model.price);
        // Only what this very call said tells anything about it.
        let part = entry.and_then(|entry| Some((entry, entry.meta.answer()?)));
        let part = part.filter(|(_, answer)| (answer.attempt, &answer.model_id) == (call.attempt, &call.model_id));
        let Some((entry, answer)) = part else { return reservation.lost(0, CallFinish::Lost, price, now) };
        let finish = match (entry.meta.state, answer.finish) {
            (EntryState::Final, Some(reason)) => CallFinish::of(reason),
            (EntryState::Failed, _) => CallFinish::Failed,
            _ => CallFinish::Lost,
        };
        match answer.usage.filter(|usage| !usage.estimated) {
            Some(usage) => {
                let record = reservation.record(usage, finish, price, now);
                let total_ms = answer.total_ms.unwrap_or(record.total_ms);
                UsageRecord { first_token_ms: answer.first_token_ms, total_ms, ..record }
            }
            None => {
                let counter = model.map(|model| model.counter).unwrap_or_default();
                reservation.lost(counter.count(entry.content.text()), finish, price, now)
            }
        }
    }
}
