//! Stopping and regenerating answers, and choosing the model.

use chatbox_shared::auth::Principal;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{MessageId, SessionId};

use super::access;
use super::context::Context;
use super::models::model_or_default;
use super::writing::append_event;
use crate::log::entry::LogEvent;
use crate::log::state::Intent;
use crate::turn::{regenerate as turn_regenerate, stop as turn_stop};

/// Stops the growing answer, which keeps its text. Succeeds also without a growing answer.
///
/// # Errors
/// `forbidden` unless the principal owns the session or assists in it.
pub async fn stop(cx: &Context, by: &Principal, id: SessionId) -> Result<(), Failure> {
    let session = access::steerable(cx, by, id).await?;
    turn_stop::stop(&cx.turns, &session).await
}

/// Answers the last user message of the principal's own session again, as an entry with the id `answer`. A repeated request
/// with the same id succeeds. Empty `model_id`: the session's model answers.
///
/// # Errors
/// `conflict` while an answer is growing, or while a message waits for its first answer; `not_found` without a message to
/// answer.
pub async fn regenerate(
    cx: &Context,
    by: &Principal,
    id: SessionId,
    model_id: &str,
    answer: MessageId,
) -> Result<(), Failure> {
    let session = access::own(cx, by, id).await?;
    let model_id = if model_id.is_empty() {
        session.read(|live| live.state.model_id.clone())
    } else {
        model_or_default(cx, model_id)?
    };
    turn_regenerate::regenerate(&cx.turns, &session, model_id, answer).await
}

/// Chooses the model that answers in the principal's own session from now on.
///
/// # Errors
/// `model_unavailable` if there is no such model.
pub async fn select_model(cx: &Context, by: &Principal, id: SessionId, model_id: &str) -> Result<(), Failure> {
    let session = access::own(cx, by, id).await?;
    let model_id = cx.tunables().catalog.get(model_id).ok_or(ErrorCode::ModelUnavailable)?.id.clone();
    let event = LogEvent::ModelChanged(model_id.clone());
    append_event(cx, &session, Intent::SelectModel(&model_id), event, String::new()).await
}
