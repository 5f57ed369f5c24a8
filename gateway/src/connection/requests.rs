//! The requests of one connection without a reply. They are kept whole and in order, so that they can be sent again
//! after the link or the brain was lost. Sending a request twice is harmless, because the brain detects duplicates.

use std::time::Duration;

use chatbox_shared::proto;
use chatbox_shared::proto::client_message::Message;
use tokio::time::Instant;

/// How long a request waits while no brain can be reached. Then it is answered with `unavailable`.
const BRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A request without a reply.
#[derive(Debug)]
pub(super) struct PendingRequest {
    /// The number between gateway and brain.
    pub(super) no: u32,
    /// The id between client and gateway, if the client gave one.
    pub(super) id: Option<Box<str>>,
    /// The request.
    pub(super) message: Box<Message>,
    since: Instant,
    bytes: usize,
}

/// The pending requests, oldest first. An empty list owns no memory.
#[derive(Debug, Default)]
pub(super) struct Requests {
    list: Vec<PendingRequest>,
    bytes: usize,
    last_no: u32,
}

impl Requests {
    /// Adds a request and returns its number.
    pub(super) fn add(&mut self, id: Option<Box<str>>, message: Message, now: Instant) -> u32 {
        self.last_no = self.last_no.wrapping_add(1);
        let bytes = message.encoded_len();
        self.bytes += bytes;
        self.list.push(PendingRequest { no: self.last_no, id, message: Box::new(message), since: now, bytes });
        self.last_no
    }

    /// The request with this number. `None` if it was answered.
    pub(super) fn get(&self, no: u32) -> Option<&PendingRequest> {
        self.list.iter().find(|pending| pending.no == no)
    }

    /// The request as it is sent to the brain.
    pub(super) fn for_brain(&self, no: u32) -> Option<proto::ClientMessage> {
        self.get(no).map(|pending| proto::ClientMessage { message: Some(pending.message.as_ref().clone()) })
    }

    /// Removes an answered request.
    pub(super) fn finish(&mut self, no: u32) -> Option<PendingRequest> {
        let index = self.list.iter().position(|pending| pending.no == no)?;
        Some(self.remove(index))
    }

    /// Removes one request that has waited for [`BRAIN_TIMEOUT`].
    pub(super) fn expired(&mut self, now: Instant) -> Option<PendingRequest> {
        let oldest = self.list.first()?;
        (now.duration_since(oldest.since) >= BRAIN_TIMEOUT).then(|| self.remove(0))
    }

    /// When the oldest request will have waited for [`BRAIN_TIMEOUT`].
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.list.first().map(|oldest| oldest.since + BRAIN_TIMEOUT)
    }

    fn remove(&mut self, index: usize) -> PendingRequest {
        let pending = self.list.remove(index);
        self.bytes -= pending.bytes;
        if self.list.is_empty() {
            self.list = Vec::new();
        }
        pending
    }

    /// The numbers of the requests, oldest first.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.list.iter().map(|pending| pending.no)
    }

    /// The number of requests.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The size of all requests in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> Message {
        Message::SessionEnd(proto::SessionEnd { session_id: "00000000-0000-4000-8000-000000000000".to_owned() })
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_kept_in_order_until_they_are_answered() {
        let mut requests = Requests::default();
        let now = Instant::now();
        let numbers: Vec<u32> = (0..3).map(|_| requests.add(None, end(), now)).collect();
        assert_eq!(requests.numbers().collect::<Vec<_>>(), numbers);
        assert!(requests.finish(numbers[1]).is_some());
        assert!(requests.finish(numbers[1]).is_none());
        assert_eq!(requests.numbers().collect::<Vec<_>>(), [numbers[0], numbers[2]]);
        assert!(requests.expired(now + BRAIN_TIMEOUT - Duration::from_millis(1)).is_none());
        assert_eq!(requests.expired(now + BRAIN_TIMEOUT).map(|pending| pending.no), Some(numbers[0]));
        assert_eq!(requests.expired(now + BRAIN_TIMEOUT).map(|pending| pending.no), Some(numbers[2]));
        assert_eq!((requests.len(), requests.bytes(), requests.list.capacity()), (0, 0, 0));
    }
}
