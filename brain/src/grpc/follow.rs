//! Letting a connection follow a session: the reply to an open, the replay, and the resumption of a connection that moved here
//! from another brain. A replay runs in a task of its own, so no request waits for a client that reads slowly.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{Seq, SessionId};
use chatbox_shared::proto::{self, server_message::Message};
use tokio::time::Instant;

use super::connection::Connection;
use super::following::Following;
use super::kick::KickReason;
use super::panic_guard::PanicGuard;
use super::{convert, encode};
use crate::service::context::Context;
use crate::service::sessions::{self, OpenedSession};
use crate::session::audience::Follower;
use crate::session::handle::Session;
use crate::session::replay::{ReplayEnd, replay, start};

/// How long a session may stay unavailable to a connection that follows it before the client must connect again.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first wait before a failed replay or resumption is tried again. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Replies to a request with the session, then replays the session to the connection in a task of its own.
///
/// # Errors
/// Why the connection may not open the session. The request has no reply then.
pub(super) fn open(
    cx: &Context,
    connection: &Arc<Connection>,
    opened: OpenedSession,
    request_no: u32,
) -> Result<(), Failure> {
    let OpenedSession { session, from } = opened;
    let replay = connection.open(&session, cx.tunables().limits.open_sessions)?;
    // A connection that opens a session again gets no live events between the reply and the replay.
    session.unsubscribe(connection.as_ref());
    let start = start(&session, &from);
    let info = proto::SessionInfo {
        session: Some(convert::session(&start.view)),
        truncated_before: start.truncated_before,
        reset: start.reset,
    };
    connection.reply(request_no, Some(Message::Session(info)));
    let (cx, following) = (cx.clone(), Following::new(Arc::clone(connection), session.id, replay));
    cx.sessions.lifecycle.clone().spawn(async move {
        let guard = PanicGuard::new(following.connection());
        replay_patiently(&cx, &following, &session, start.after).await;
        drop(guard);
    });
    Ok(())
}

/// Replays the session until the connection follows it live. The client has its reply already, so a store that cannot be reached is
/// waited for. The client ignores what it gets twice.
async fn replay_patiently(cx: &Context, following: &Following, session: &Arc<Session>, after: Seq) {
    let connection = following.connection();
    let mut tries = Tries::new();
    while let Err(failure) = replay_once(cx, following, session, after).await {
        log_failure(connection, "replay", &failure);
        if failure.code == ErrorCode::NotFound {
            connection.forget(session.id);
            connection.send(encode::session_deleted(session.id.to_string()));
            return;
        }
        if !failure.code.retryable() {
            connection.forget(session.id);
            connection.send(encode::session_failed(session.id.to_string(), &failure));
            return;
        }
        if !tries.pause().await {
            connection.kick(KickReason::CannotResume);
            return;
        }
    }
}

async fn replay_once(cx: &Context, following: &Following, session: &Session, after: Seq) -> Result<(), Failure> {
    let _turn = following.connection().replaying.lock().await;
    if following.is_closed() {
        return Ok(());
    }
    if replay(cx.sessions.store.as_ref(), session, following, after).await? == ReplayEnd::TooSlow {
        following.connection().kick(KickReason::TooSlow);
    }
    Ok(())
}

/// Continues the sessions of a connection that moved here from another brain. Its requests do not wait for this.
pub(super) fn resume_all(cx: &Context, connection: &Arc<Connection>, sessions: Vec<proto::Resume>) {
    let parsed = |resume: proto::Resume| match convert::session_id(&resume.session_id) {
        Ok(id) => Some((id, resume)),
        Err(failure) => {
            log_failure(connection, "resume", &failure);
            None
        }
    };
    let sessions: Vec<_> = sessions.into_iter().filter_map(parsed).collect();
    connection.set_resuming(sessions.iter().map(|(id, _)| *id).collect());
    let (cx, connection) = (cx.clone(), Arc::clone(connection));
    cx.sessions.lifecycle.clone().spawn(async move {
        let guard = PanicGuard::new(&connection);
        for (id, session) in sessions {
            resume(&cx, &connection, id, &session).await;
        }
        drop(guard);
    });
}

/// Continues one session. The client does not notice the move, so this is tried until it succeeds. If it cannot succeed, the
/// connection is ended and its client resumes by itself.
async fn resume(cx: &Context, connection: &Arc<Connection>, id: SessionId, resume: &proto::Resume) {
    let mut tries = Tries::new();
    while connection.is_resuming(id) {
        let principal = connection.principal();
        let opened = sessions::resume(cx, &principal, id, resume.after_seq, resume.epoch.clone()).await;
        match opened.and_then(|opened| Ok((connection.open_resumed(&opened.session)?, opened))) {
            Ok((None, _)) => return,
            Ok((Some(replay), OpenedSession { session, from })) => {
                let following = Following::new(Arc::clone(connection), id, replay);
                let start = start(&session, &from);
                return replay_patiently(cx, &following, &session, start.after).await;
            }
            Err(failure) if failure.code == ErrorCode::NotFound => {
                connection.forget(id);
                connection.send(encode::session_deleted(resume.session_id.clone()));
                return;
            }
            Err(failure) => {
                log_failure(connection, "resume", &failure);
                if !failure.code.retryable() || !tries.pause().await {
                    connection.kick(KickReason::CannotResume);
                    return;
                }
            }
        }
    }
}

/// Pauses between tries, for [`PATIENCE`] in all.
struct Tries {
    until: Instant,
    pause: Duration,
}

impl Tries {
    fn new() -> Self {
        Self { until: Instant::now() + PATIENCE, pause: FIRST_PAUSE }
    }

    /// Waits before the next try. `false`: there is no time for another one.
    async fn pause(&mut self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
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
