//! The way out to one gateway: a queue in front of the link's stream. It is filled under the locks of sessions, so it
//! never waits; a gateway that does not read is cut off when the bound is reached, and resumes on a new link.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use chatbox_shared::proto::{BrainFrame, Deliver, Kick, Reply, ServerMessage, brain_frame::Frame};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Frames that may wait for a gateway. At 10,000 connections on one link this is a few events for each.
const MAX_FRAMES: usize = 65_536;
/// Bytes that may wait for a gateway.
const MAX_BYTES: usize = 64 << 20;

/// Sends to one gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
    frames: mpsc::Sender<BrainFrame>,
}

#[derive(Debug)]
struct Shared {
    waiting_bytes: AtomicUsize,
    broken: CancellationToken,
}

/// The other end: what the link's stream takes from.
#[derive(Debug)]
pub struct OutboxReader {
    shared: Arc<Shared>,
    frames: mpsc::Receiver<BrainFrame>,
}

/// A new queue.
pub fn outbox() -> (Outbox, OutboxReader) {
    let (sender, receiver) = mpsc::channel(MAX_FRAMES);
    let shared = Arc::new(Shared { waiting_bytes: AtomicUsize::new(0), broken: CancellationToken::new() });
    (Outbox { shared: Arc::clone(&shared), frames: sender }, OutboxReader { shared, frames: receiver })
}

impl Outbox {
    /// Queues one frame. On a broken link it is dropped: the gateway resumes from the store.
    pub fn send(&self, frame: Frame) {
        let frame = BrainFrame { frame: Some(frame) };
        let bytes = frame.encoded_len();
        let waiting = self.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > MAX_BYTES || self.frames.try_send(frame).is_err() {
            self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.broken.cancel();
        }
    }

    /// One encoded message for many connections.
    pub fn deliver(&self, conns: Vec<u64>, message: Bytes, receipt: u64) {
        self.send(Frame::Deliver(Deliver { conns, message, receipt }));
    }

    /// The reply to one request.
    pub fn reply(&self, conn: u64, request_no: u32, message: Option<ServerMessage>) {
        self.send(Frame::Reply(Reply { conn, request_no, message }));
    }

    /// Closes one connection.
    pub fn kick(&self, kick: Kick) {
        self.send(Frame::Kick(kick));
    }

    /// Cancelled when the gateway did not keep up, or the link is gone.
    pub fn broken(&self) -> &CancellationToken {
        &self.shared.broken
    }

    /// Do both lead to the same gateway?
    pub fn same_link(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl OutboxReader {
    /// The next frame; `None` when the link is to end.
    pub async fn next(&mut self) -> Option<BrainFrame> {
        let frame = tokio::select! {
            biased;
            () = self.shared.broken.cancelled() => None,
            frame = self.frames.recv() => frame,
        }?;
        self.shared.waiting_bytes.fetch_sub(frame.encoded_len(), Ordering::Relaxed);
        Some(frame)
    }
}

impl Drop for OutboxReader {
    fn drop(&mut self) {
        self.shared.broken.cancel();
    }
}

#[cfg(test)]
mod tests {
    use chatbox_shared::proto::Drain;

    use super::*;

    #[tokio::test]
    async fn a_gateway_that_does_not_read_is_cut_off_at_the_bound() {
        let (outbox, mut reader) = outbox();
        for _ in 0..MAX_FRAMES {
            outbox.send(Frame::Drain(Drain {}));
        }
        assert!(!outbox.broken().is_cancelled());
        outbox.send(Frame::Drain(Drain {}));
        assert!(outbox.broken().is_cancelled());
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn a_gateway_that_reads_is_never_cut_off() {
        let (outbox, mut reader) = outbox();
        for _ in 0..2 * MAX_FRAMES {
            outbox.send(Frame::Drain(Drain {}));
            assert!(reader.next().await.is_some());
        }
        assert!(!outbox.broken().is_cancelled());
    }
}
