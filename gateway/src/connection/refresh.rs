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

    /// Takes over a renewed token of the same user. Any other result closes the connection.
    pub(super) fn refreshed(&mut self, id: Option<Box<str>>, outcome: Result<Verified, TokenError>) {
        match outcome {
            Ok(verified) if verified.principal.user == self.accepted.verified.principal.user => {
                self.heartbeat.renew(verified.expires_at, Instant::now(), self.context.clock.now());
                self.accepted.verified = verified;
                self.uplink.push(UplinkMessage::Refresh);
                self.push_text(id.as_deref().and_then(frame::ack));
            }
            outcome => {
                let reason = outcome.err().map_or("another_user", TokenError::reason);
                tracing::info!(connection = %self.accepted.id, reason, "renewed token rejected");
                self.refuse(id.as_deref(), &Failure::new(ErrorCode::Unauthorized));
                self.close(CloseCode::TOKEN);
            }
        }
    }
}
