//! The renewal of a connection's token: verified beside the loop, then taken over or rejected.

use std::sync::Arc;
use std::task::{Context, Poll};

use chatbox_link::UplinkMessage;
use chatbox_shared::auth::{TokenError, Verified};
use chatbox_shared::failure::{ErrorCode, Failure};
use tokio::time::Instant;

use super::state::Connection;
use super::types::Refreshed;
use crate::frame;
use crate::send_queue::CloseCode;

impl Connection {
    /// Starts to verify a renewed token. `id` is the id of the request.
    pub(super) fn start_refresh(&mut self, id: Option<Box<str>>, token: String) {
        let verifier = Arc::clone(&self.context.verifier);
        self.refresh = Some(Box::pin(async move { (id, verifier.verify(&token).await) }));
    }

    /// The result of the verification. Pending if no token is verified.
    pub(super) fn poll_refresh(&mut self, task: &mut Context<'_>) -> Poll<Refreshed> {
        let Some(refresh) = &mut self.refresh else { return Poll::Pending };
        let refreshed = refresh.as_mut().poll(task);
        if refreshed.is_ready() {
            self.refresh = None;
        }
        refreshed
    }

    /// Takes over a renewed token of the same user. Any other result closes the connection, except missing keys: then the
    /// client may send the token again, as long as its present token is valid.
    pub(super) fn refreshed(&mut self, id: Option<Box<str>>, outcome: Result<Verified, TokenError>) {
        match outcome {
            Ok(verified) if verified.principal.user == self.accepted.verified.principal.user => {
                self.heartbeat.renew(verified.expires_at, Instant::now(), self.context.clock.now());
                self.accepted.verified = verified;
                self.uplink.push(UplinkMessage::Refresh);
                self.push_text(id.as_deref().and_then(frame::ack));
            }
            Err(error @ TokenError::KeysUnavailable) => {
                tracing::warn!(connection = %self.accepted.id, %error, "renewed token not checked");
                self.refuse(id.as_deref(), &Failure::new(ErrorCode::Unavailable));
            }
            outcome => {
                let detail = outcome.as_ref().err().map(tracing::field::display);
                let reason = outcome.as_ref().err().map_or("another_user", |error| error.reason());
                tracing::info!(connection = %self.accepted.id, reason, detail, "renewed token rejected");
                self.refuse(id.as_deref(), &Failure::new(ErrorCode::Unauthorized));
                self.close(CloseCode::TOKEN);
            }
        }
    }
}
