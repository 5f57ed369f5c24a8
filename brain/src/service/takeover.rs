//! Humans who watch a session, take over from the AI, and hand back.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::auth::Principal;
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::{Seq, SessionId};

use super::access;
use super::audit::{self, Reading};
use super::context::Context;
use super::sessions::{OpenedSession, opened};
use super::writing::append_event;
use crate::log::entry::{FinishReason, LogEvent};
use crate::log::state::Intent;
use crate::session::handle::Session;
use crate::session::replay::ReplayFrom;
use crate::turn::stop;

/// The first wait before a release that the store could not take is tried again. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Opens any session for an admin, who then follows it without taking over.
///
/// # Errors
/// `forbidden` if the principal is no admin.
pub async fn watch(cx: &Context, by: &Principal, id: SessionId, after_seq: Seq) -> Result<OpenedSession, Failure> {
    let session = access::as_admin(cx, by, id).await?;
    audit::read(by, &session, Reading::Watch);
    opened(cx, session, replay_from(cx, after_seq)).await
}

/// Takes over from the AI and opens the session. The AI writes nothing after this returns.
///
/// # Errors
/// `forbidden` if the principal is no admin, `already_assisted` if another human assists.
pub async fn join(cx: &Context, by: &Principal, id: SessionId) -> Result<OpenedSession, Failure> {
    let session = access::as_admin(cx, by, id).await?;
    let event = LogEvent::AdminJoined(access::person(by));
    append_event(cx, &session, Intent::Join(&by.user), event, String::new()).await?;
    // From this entry on the log refuses new answers. An answer that was growing before it must end before the reply.
    stop::end(&cx.turns, &session, FinishReason::Interrupted).await?;
    audit::read(by, &session, Reading::Join);
    opened(cx, session, replay_from(cx, 0)).await
}

/// Hands back to the AI, which answers from the next message on. A repeated request succeeds.
///
/// # Errors
/// `forbidden` if the principal is no admin, `not_assisting` if another human assists.
pub async fn leave(cx: &Context, by: &Principal, id: SessionId) -> Result<(), Failure> {
    let session = access::as_admin(cx, by, id).await?;
    release(cx, by, &session).await
}

/// Hands back every session in which an admin assists who has lost the role, so that the AI answers there again and another admin
/// may join.
pub async fn release_all(cx: &Context, by: &Principal) {
    let assists = |session: &Arc<Session>| {
        session.read(|live| live.state.admin.as_ref().is_some_and(|admin| admin.id == by.user))
    };
    for session in cx.sessions.all().into_iter().filter(assists) {
        let mut pause = FIRST_PAUSE;
        while let Err(failure) = release(cx, by, &session).await {
            tracing::warn!(session = %session.id, %failure, "an admin without the role still assists");
            if !failure.code.retryable() || cx.sessions.lifecycle.draining().is_cancelled() {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn release(cx: &Context, by: &Principal, session: &Arc<Session>) -> Result<(), Failure> {
    let event = LogEvent::AdminLeft(access::person(by));
    append_event(cx, session, Intent::Leave(&by.user), event, String::new()).await
}

fn replay_from(cx: &Context, after_seq: Seq) -> ReplayFrom {
    ReplayFrom { after_seq, epoch: String::new(), limit: cx.tunables().limits.replay_entries }
}
