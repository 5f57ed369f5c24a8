//! Authorisation: which sessions a principal may use, and for what. A session that a principal may not read does not exist
//! for them, so nobody learns which ids are taken.

use std::sync::Arc;

use chatbox_shared::auth::Principal;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::SessionId;

use super::context::Context;
use super::models::model_or_default;
use crate::log::entry::{Person, Sender};
use crate::session::erase;
use crate::session::handle::Session;

/// The principal's own session.
///
/// # Errors
/// `not_found` if there is none with this id, or if it belongs to another user.
pub(super) async fn own(cx: &Context, by: &Principal, id: SessionId) -> Result<Arc<Session>, Failure> {
    owned(by, cx.sessions.get(id).await?)
}

/// The principal's own session. If there is none with this id, creates it with this model and name. Empty `model_id`: the
/// default model.
///
/// # Errors
/// `not_found` if the id belongs to another user or to an erased session, `model_unavailable` if there is no such model.
pub(super) async fn own_or_create(
    cx: &Context,
    by: &Principal,
    id: SessionId,
    model_id: &str,
    name: &str,
) -> Result<Arc<Session>, Failure> {
    let session = match cx.sessions.get(id).await? {
        Some(session) => Some(session),
        None => cx.sessions.create(id, &by.user, model_or_default(cx, model_id)?, name).await?,
    };
    owned(by, session)
}

/// Whether this id belongs to an erased session of the principal.
///
/// # Errors
/// If the store cannot be reached.
pub(super) async fn erased_own(cx: &Context, by: &Principal, id: SessionId) -> Result<bool, Failure> {
    erase::was_erased(cx.sessions.store.as_ref(), id, &by.user).await
}

/// The principal's own session, or any session for an admin.
///
/// # Errors
/// `not_found` if there is none with this id, or if the principal may not read it.
pub(super) async fn readable(cx: &Context, by: &Principal, id: SessionId) -> Result<Arc<Session>, Failure> {
    let session = existing(cx, id).await?;
    if may_read(by, &session) { Ok(session) } else { Err(ErrorCode::NotFound.into()) }
}

/// Any session, for an admin.
///
/// # Errors
/// `forbidden` if the principal is no admin, `not_found` if there is no session with this id.
pub(super) async fn as_admin(cx: &Context, by: &Principal, id: SessionId) -> Result<Arc<Session>, Failure> {
    if !by.is_admin() {
        return Err(ErrorCode::Forbidden.into());
    }
    existing(cx, id).await
}

/// A session whose answer the principal may stop: the owner's, or the one in which the principal assists.
///
/// # Errors
/// `not_found` if the principal may not read the session, `forbidden` if they may only read it.
pub(super) async fn steerable(cx: &Context, by: &Principal, id: SessionId) -> Result<Arc<Session>, Failure> {
    let session = readable(cx, by, id).await?;
    let assists = session.read(|live| live.state.admin.as_ref().is_some_and(|admin| admin.id == by.user));
    if session.owner == by.user || assists { Ok(session) } else { Err(ErrorCode::Forbidden.into()) }
}

/// Whether the principal may read the session: its owner and admins may.
pub(super) fn may_read(by: &Principal, session: &Session) -> bool {
    by.is_admin() || session.owner == by.user
}

/// The principal as a participant of the session: the owner as `User`, anyone else as `Admin`.
pub(super) fn participant(by: &Principal, session: &Session) -> Sender {
    if session.owner == by.user { Sender::User(person(by)) } else { Sender::Admin(person(by)) }
}

/// The human that a token names.
pub(super) fn person(by: &Principal) -> Person {
    Person { id: by.user.clone(), name: by.name.clone() }
}

/// This session, if the principal owns it.
fn owned(by: &Principal, session: Option<Arc<Session>>) -> Result<Arc<Session>, Failure> {
    session.filter(|session| session.owner == by.user).ok_or_else(|| ErrorCode::NotFound.into())
}

async fn existing(cx: &Context, id: SessionId) -> Result<Arc<Session>, Failure> {
    cx.sessions.get(id).await?.ok_or_else(|| ErrorCode::NotFound.into())
}
