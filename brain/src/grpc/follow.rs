//! Letting a connection follow a session: the reply to an open, the replay, and the resumption of a connection that moved here
//! from another brain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::proto::{self, server_message::Message};

use super::connection::Connection;
use super::kick::KickReason;
use super::{convert, encode};
use crate::service::context::Context;
use crate::service::sessions::{self, OpenedSession};
use crate::session::audience::Follower;
use crate::session::replay::{ReplayEnd, replay, start};

/// How long a session of a moved connection may stay unavailable before the client must connect again.
const RESUME_PATIENCE: Duration = Duration::from_secs(30);
/// The first wait before a resumption is tried again. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Replays the session to the connection and lets it follow live. `request_no`: the request to answer with the session first;
/// `None` for a moved connection, whose client does not notice the move.
///
/// # Errors
/// If the store cannot be reached after the reply. The connection does not follow the session then.
pub(super) async fn follow(
    cx: &Context,
    connection: &Arc<Connection>,
    opened: OpenedSession,
    request_no: Option<u32>,
) -> Result<(), Failure> {
    let OpenedSession { session, from } = opened;
    // A connection that opens a session again gets no live events between the reply and the replay.
    session.unsubscribe(connection.as_ref());
    let start = start(&session, &from);
    if let Some(request_no) = request_no {
        connection.reply(
            request_no,
            Some(Message::Session(proto::SessionInfo {
                session: Some(convert::session(&start.view)),
                truncated_before: start.truncated_before,
                reset: start.reset,
            })),
        );
    }
    if !connection.remember(Arc::clone(&session)) {
        return Ok(());
    }
    match replay(cx.sessions.store.as_ref(), &session, connection, start.after).await {
        Ok(ReplayEnd::Live | ReplayEnd::Gone) => Ok(()),
        Ok(ReplayEnd::TooSlow) => {
            connection.kick(KickReason::TooSlow);
            Ok(())
        }
        Err(failure) => {
            connection.forget(session.id);
            Err(failure)
        }
    }
}

/// Continues a session of a connection that moved here from another brain. Its client does not notice the move, so this is tried
/// until it succeeds. If it cannot succeed, the connection is ended and its client resumes by itself.
pub(super) async fn resume(cx: &Context, connection: &Arc<Connection>, resume: &proto::Resume) {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    while !connection.is_closed() {
        let Err(failure) = try_resume(cx, connection, resume).await else { return };
        if failure.code == ErrorCode::NotFound {
            connection.send(encode::session_deleted(resume.session_id.clone()));
            return;
        }
        log_failure(connection, "resume", &failure);
        if begun.elapsed() > RESUME_PATIENCE || !failure.code.retryable() {
            connection.kick(KickReason::CannotResume);
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn try_resume(cx: &Context, connection: &Arc<Connection>, resume: &proto::Resume) -> Result<(), Failure> {
    let id = convert::session_id(&resume.session_id)?;
    let principal = connection.principal();
    let opened = sessions::resume(cx, &principal, id, resume.after_seq, resume.epoch.clone()).await?;
    follow(cx, connection, opened, None).await
}

/// Logs a request that failed. Only failures of the service are warnings; errors of clients are not.
pub(super) fn log_failure(connection: &Connection, kind: &str, failure: &Failure) {
    let error_id = &failure.error_id;
    if failure.code.http_status() >= 500 {
        tracing::warn!(connection = %connection.id, kind, error_id, code = failure.code.as_str(), "request failed");
    } else {
        tracing::debug!(connection = %connection.id, kind, error_id, %failure, "request refused");
    }
}
