//! Opening, listing, renaming, ending and deleting sessions.

use std::sync::Arc;

use chatbox_shared::auth::Principal;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{Seq, SessionId};
use futures_util::StreamExt;

use super::audit::{self, Reading};
use super::context::Context;
use super::writing::append_event;
use super::{access, page};
use crate::log::entry::{FinishReason, LogEvent};
use crate::log::state::Intent;
use crate::session::catch_up::catch_up;
use crate::session::handle::Session;
use crate::session::replay::ReplayFrom;
use crate::session::view::SessionView;
use crate::session::{erase, failures, name, summary};
use crate::store::{SessionCursor, StateFilter};
use crate::turn::stop;

/// Rows of a page that are compared with their logs at once.
const LISTED_AT_ONCE: usize = 8;

/// A request to open the principal's own session.
#[derive(Debug, Clone)]
pub struct OpenSession {
    /// The session.
    pub id: SessionId,
    /// Create the session if it does not exist.
    pub create: bool,
    /// The model of a session that is created; empty: the default model.
    pub model_id: String,
    /// The name of a session that is created.
    pub name: String,
    /// The client has every entry up to here in its final form.
    pub after_seq: Seq,
    /// The log that `after_seq` belongs to; empty if the client does not say.
    pub epoch: String,
}

/// A session that may be followed, and from where. It has caught up with the store.
#[derive(Debug)]
pub struct OpenedSession {
    /// The session.
    pub session: Arc<Session>,
    /// From where its log is replayed.
    pub from: ReplayFrom,
}

/// Opens the principal's own session, and creates it on request.
///
/// # Errors
/// `not_found` if there is none, `model_unavailable` or `too_large` for a session that cannot be created so.
pub async fn open(cx: &Context, by: &Principal, command: OpenSession) -> Result<OpenedSession, Failure> {
    let OpenSession { id, create, model_id, name, after_seq, epoch } = command;
    check_name(cx, &name)?;
    let session = if create {
        access::own_or_create(cx, by, id, &model_id, &name).await?
    } else {
        access::own(cx, by, id).await?
    };
    let limit = cx.tunables().limits.replay_entries;
    opened(cx, session, ReplayFrom { after_seq, epoch, limit }).await
}

/// Opens a session for a client that followed it through another brain and does not notice the move.
///
/// # Errors
/// `not_found` if the session does not exist or may not be read, `conflict` if the client has another log.
pub async fn resume(
    cx: &Context,
    by: &Principal,
    id: SessionId,
    after_seq: Seq,
    epoch: String,
) -> Result<OpenedSession, Failure> {
    let session = access::readable(cx, by, id).await?;
    audit::read(by, &session, Reading::Resume);
    let opened = opened(cx, session, ReplayFrom { after_seq, epoch, limit: u64::MAX }).await?;
    let (session, from) = (&opened.session, &opened.from);
    if from.after_seq > session.seq() || (!from.epoch.is_empty() && from.epoch != session.epoch) {
        // Only the client itself can discard what it has.
        return Err(Failure::with_message(ErrorCode::Conflict, "The session's log was replaced."));
    }
    Ok(opened)
}

/// Does everything about an open that may fail before its reply.
pub(super) async fn opened(cx: &Context, session: Arc<Session>, from: ReplayFrom) -> Result<OpenedSession, Failure> {
    catch_up(cx.sessions.store.as_ref(), &session).await?;
    Ok(OpenedSession { session, from })
}

/// Whether the principal may go on following this session after their roles have changed.
pub fn may_follow(by: &Principal, session: &Session) -> bool {
    access::may_read(by, session)
}

/// One page of the principal's sessions.
#[derive(Debug)]
pub struct SessionPage {
    /// The sessions, latest activity first.
    pub sessions: Vec<SessionView>,
    /// Where the next page begins; `None` after the last page.
    pub next: Option<SessionCursor>,
}

/// Lists the principal's sessions. `limit` 0: the default page.
///
/// # Errors
/// If the limit is out of bounds, or the store cannot be reached.
pub async fn list(
    cx: &Context,
    by: &Principal,
    filter: StateFilter,
    after: Option<SessionCursor>,
    limit: u32,
) -> Result<SessionPage, Failure> {
    let limit = page::rows(limit)?;
    let rows = cx.sessions.store.list_sessions(&by.user, filter, after, limit).await;
    let rows = rows.map_err(|error| failures::list_failed(&error))?;
    let full = rows.len() == limit as usize;
    let next = rows.last().filter(|_| full).map(|row| SessionCursor { last_at: row.summary.last_at, id: row.id });
    // Left out: a session that was erased meanwhile, and one whose key cannot be unwrapped, which is logged.
    let listed = futures_util::stream::iter(rows).map(|row| cx.sessions.listed(row)).buffered(LISTED_AT_ONCE);
    let sessions = listed.filter_map(async |session| Some(session.ok()??.view())).collect().await;
    Ok(SessionPage { sessions, next })
}

/// Renames the principal's own session.
///
/// # Errors
/// `too_large` if the name is too long, `not_found` if there is no such session.
pub async fn rename(cx: &Context, by: &Principal, id: SessionId, new_name: &str) -> Result<(), Failure> {
    check_name(cx, new_name)?;
    let session = access::own(cx, by, id).await?;
    name::rename(cx.sessions.store.as_ref(), &session, new_name).await
}

/// Ends the principal's own session. A growing answer stops and keeps its text.
///
/// # Errors
/// `not_found` if there is no such session.
pub async fn end(cx: &Context, by: &Principal, id: SessionId) -> Result<(), Failure> {
    let session = access::own(cx, by, id).await?;
    append_event(cx, &session, Intent::End, LogEvent::SessionEnded, String::new()).await?;
    stop::end(&cx.turns, &session, FinishReason::Stopped).await?;
    summary::save_now(&cx.sessions.store, &cx.sessions.lifecycle, &session).await;
    Ok(())
}

/// Deletes the principal's own session. A repeated request succeeds.
///
/// # Errors
/// `not_found` if there is no such session and never was.
pub async fn delete(cx: &Context, by: &Principal, id: SessionId) -> Result<(), Failure> {
    let session = match access::own(cx, by, id).await {
        Ok(session) => session,
        Err(_) if access::erased_own(cx, by, id).await? => return Ok(()),
        Err(failure) => return Err(failure),
    };
    stop::abandon(&cx.turns, &session).await;
    erase::erase(&cx.sessions, &session).await?;
    audit::deleted(by, id);
    Ok(())
}

fn check_name(cx: &Context, name: &str) -> Result<(), Failure> {
    let max = cx.tunables().limits.max_name_chars;
    if name.chars().count() > max {
        return Err(Failure::too_large("name", format!("The name may have at most {max} characters.")));
    }
    Ok(())
}
