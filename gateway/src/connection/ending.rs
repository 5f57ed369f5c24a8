//! How a connection closes, and the one log line that sums it up.

use std::ops::ControlFlow;

use super::closing::Closing;
use super::state::Connection;
use crate::metrics::CloseLabel;
use crate::send_queue::CloseCode;

impl Connection {
    /// Starts to close: the waiting items are sent, then the close frame.
    pub(super) fn close(&mut self, code: CloseCode) {
        self.closing.get_or_insert_with(|| Closing::with_frame(code));
        self.refresh = None;
    }

    /// The client sent a close frame. The WebSocket itself answers it.
    pub(super) fn client_closed(&mut self, code: CloseCode) {
        self.closing.get_or_insert_with(|| Closing::with_frame(code)).answered = true;
    }

    /// The socket failed. A client that can still receive a close frame gets one.
    pub(super) fn failed(&mut self, error: &tungstenite::Error) -> ControlFlow<()> {
        match CloseCode::answering(error) {
            Some(code) if self.closing.is_none() => {
                self.close(code);
                if let Some(closing) = &mut self.closing {
                    closing.broken = true;
                }
                ControlFlow::Continue(())
            }
            _ => self.gone(),
        }
    }

    /// The socket is closed. Without an earlier close the connection counts as closed with 1006.
    pub(super) fn gone(&mut self) -> ControlFlow<()> {
        self.closing.get_or_insert_with(|| Closing::at_once(CloseCode::ABNORMAL));
        ControlFlow::Break(())
    }

    /// The task panicked. The connection counts as closed with 1011.
    pub(super) fn panicked(&mut self) {
        tracing::error!(connection = %self.accepted.id, "task of a connection panicked");
        self.closing = Some(Closing::at_once(CloseCode::INTERNAL));
    }
}

/// Leaves the registry and the link, however the task ended.
impl Drop for Connection {
    fn drop(&mut self) {
        let code = self.closing.as_ref().map_or(CloseCode::INTERNAL, |closing| closing.code);
        self.context.registry.remove(self.conn);
        self.uplink.leave(self.conn);
        self.context.metrics.in_flight.dec_by(i64::try_from(self.requests.len()).unwrap_or_default());
        self.context.metrics.closed(CloseLabel::of(code.0));
        tracing::info!(
            connection = %self.accepted.id,
            client = %self.accepted.remote_ip,
            user = %self.accepted.verified.principal.user,
            code = code.0,
            duration_ms = u64::try_from(self.context.clock.now().since(self.since).as_millis()).unwrap_or(u64::MAX),
            frames_in = self.violations.frames(),
            frames_out = self.write_state.frames(),
            "connection closed"
        );
    }
}
