//! Authorisation: which sessions a principal gets, and for what. A session that a principal may not read does not exist for
//! them, so nobody learns which ids are taken.

use std::sync::Arc;

use chatbox_shared::auth::Principal;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::SessionId;

use super::context::Context;
use crate::log::entry::{Person, Sender};
use crate::session::handle::Session;

/// The principal's own session.
///
/// # Errors
/// `not_found` if there is none with this id, or if it belongs to another user.
pub(super) async fn own(cx: &Context, by: &Principal, id: SessionId) -> Result<Arc<Session>, Failure> {
    let session = existing(cx, id).await?;
    if session.owner == by.user { Ok(session) } else { Err(ErrorCode::NotFound.into()) }
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

async fn existing(cx: &Context, id: SessionId) -> Result<Arc<Session>, Failure> {
    cx.sessions.get(id).await?.ok_or_else(|| ErrorCode::NotFound.into())
}
