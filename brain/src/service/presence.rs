//! What participants do without writing: typing and reading.

use chatbox_shared::auth::Principal;
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::{Seq, SessionId};

use super::access;
use super::context::Context;
use crate::session::audience::{Recipients, Subscriber};
use crate::session::event::SessionEvent;
use crate::session::handle::Session;
use crate::session::summary;

/// Tells the other users who follow the session that the principal types or has stopped typing. The caller limits how often.
pub fn typing(by: &Principal, session: &Session, active: bool) {
    let participant = access::participant(by, session);
    session.publish(SessionEvent::Typing { by: &participant, active }, Recipients::OtherUsers(&by.user));
}

/// The principal has read up to `seq`. Tells everyone who follows the session except `reader`, the subscriber through which
/// the principal reads. The owner's marker is in the store when this returns, and never moves back.
///
/// # Errors
/// `not_found` if the principal may not read the session; or if the store cannot be reached.
pub async fn read(
    cx: &Context,
    by: &Principal,
    id: SessionId,
    seq: Seq,
    reader: &dyn Subscriber,
) -> Result<(), Failure> {
    let session = access::readable(cx, by, id).await?;
    let owner = session.owner == by.user;
    if !owner || summary::mark_read(cx.sessions.store.as_ref(), &session, seq).await? {
        let participant = access::participant(by, &session);
        let event = SessionEvent::Read { by: &participant, seq: seq.min(session.seq()) };
        session.publish(event, Recipients::AllBut(reader));
    }
    Ok(())
}
