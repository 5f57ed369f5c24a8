//! Choosing the model of a session.

use chatbox_shared::failure::{ErrorCode, Failure};

use super::context::Context;

/// The model with this id, or the default model for an empty id.
///
/// # Errors
/// `model_unavailable` if there is no such model.
pub(super) fn model_or_default(cx: &Context, model_id: &str) -> Result<String, Failure> {
    let tunables = cx.tunables();
    if model_id.is_empty() {
        return Ok(tunables.catalog.default_model().id.clone());
    }
    tunables.catalog.get(model_id).map(|model| model.id.clone()).ok_or_else(|| ErrorCode::ModelUnavailable.into())
}
