//! The send queue of one link. Sessions fill it under their locks, so queueing never waits. A gateway that does not read fast
//! enough loses its link when the bound is reached; its connections resume over a new link.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use chatbox_shared::proto::{BrainFrame, Deliver, Kick, Reply, ServerMessage, brain_frame::Frame};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::encode;
use crate::session::audience::Outlet;
use crate::session::event::Publication;

/// Frames that may wait. With 10,000 connections on one link these are a few events for each.
const MAX_FRAMES: usize = 65_536;
/// Bytes that may wait.
const MAX_BYTES: usize = 64 << 20;

/// The sending end.
#[derive(Debug)]
pub struct SendQueue {
    shared: Arc<Shared>,
    frames: mpsc::Sender<BrainFrame>,
}

#[derive(Debug)]
struct Shared {
    waiting_bytes: AtomicUsize,
    broken: CancellationToken,
}

/// The receiving end: the link's stream takes frames from it.
#[derive(Debug)]
pub struct SendQueueReader {
    shared: Arc<Shared>,
    frames: mpsc::Receiver<BrainFrame>,
}

/// A new, empty queue.
pub fn send_queue() -> (Arc<SendQueue>, SendQueueReader) {
    let (sender, receiver) = mpsc::channel(MAX_FRAMES);
    let shared = Arc::new(Shared { waiting_bytes: AtomicUsize::new(0), broken: CancellationToken::new() });
    (Arc::new(SendQueue { shared: Arc::clone(&shared), frames: sender }), SendQueueReader { shared, frames: receiver })
}

impl SendQueue {
    /// Queues one frame. On a broken link the frame is dropped.
    pub fn send(&self, frame: Frame) {
        let frame = BrainFrame { frame: Some(frame) };
        let bytes = frame.encoded_len();
        let waiting = self.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > MAX_BYTES || self.frames.try_send(frame).is_err() {
            self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.broken.cancel();
        }
    }

    /// Queues an encoded message for the connections with these numbers. `receipt` 0: the gateway sends no receipt.
    pub fn deliver(&self, conns: Vec<u64>, message: Bytes, receipt: u64) {
        self.send(Frame::Deliver(Deliver { conns, message, receipt }));
    }

    /// Queues the reply to a request. No message is a bare acknowledgement.
    pub fn reply(&self, conn: u64, request_no: u32, message: Option<ServerMessage>) {
        self.send(Frame::Reply(Reply { conn, request_no, message }));
    }

    /// Queues the end of a connection.
    pub fn kick(&self, kick: Kick) {
        self.send(Frame::Kick(kick));
    }

    /// Cancelled when the bound was reached, or the link has ended.
    pub fn broken(&self) -> &CancellationToken {
        &self.shared.broken
    }
}

impl Outlet for SendQueue {
    fn publish(&self, publication: &Publication<'_>, numbers: &[u64]) {
        self.deliver(numbers.to_vec(), publication.encoded(encode::event), 0);
    }
}

impl SendQueueReader {
    /// The next frame; `None` once the link must end.
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

impl Drop for SendQueueReader {
    fn drop(&mut self) {
        self.shared.broken.cancel();
    }
}

#[cfg(test)]
mod tests {
    use chatbox_shared::proto::Drain;

    use super::*;

    #[tokio::test]
    async fn a_gateway_that_does_not_read_loses_its_link_at_the_bound() {
        let (queue, mut reader) = send_queue();
        for _ in 0..MAX_FRAMES {
            queue.send(Frame::Drain(Drain {}));
        }
        assert!(!queue.broken().is_cancelled());
        queue.send(Frame::Drain(Drain {}));
        assert!(queue.broken().is_cancelled());
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn a_gateway_that_reads_keeps_its_link() {
        let (queue, mut reader) = send_queue();
        for _ in 0..2 * MAX_FRAMES {
            queue.send(Frame::Drain(Drain {}));
            assert!(reader.next().await.is_some());
        }
        assert!(!queue.broken().is_cancelled());
    }
}
