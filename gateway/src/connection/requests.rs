//! The requests of one connection that the brain has not answered. They are kept whole, in order, so that they can be
//! sent again when the link or the brain is lost; the brain's side makes that harmless.

use std::time::Duration;

use chatbox_shared::proto;
use chatbox_shared::proto::client_message::Message;
use tokio::time::Instant;

/// How long a request waits for any brain to be reachable before it is answered with `unavailable`.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A request without a reply.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Names it between gateway and brain.
    pub(crate) no: u32,
    /// Names it between client and gateway, where the client wants to know.
    pub(crate) id: Option<Box<str>>,
    /// What is asked.
    pub(crate) message: Box<Message>,
    since: Instant,
    bytes: usize,
}

/// All of them, oldest first. Owns no memory while there are none.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    list: Vec<Pending>,
    bytes: usize,
    last_no: u32,
}

impl Requests {
    /// Keeps a request and numbers it.
    pub(crate) fn add(&mut self, id: Option<Box<str>>, message: Message, now: Instant) -> u32 {
        self.last_no = self.last_no.wrapping_add(1);
        let bytes = message.encoded_len();
        self.bytes += bytes;
        self.list.push(Pending { no: self.last_no, id, message: Box::new(message), since: now, bytes });
        self.last_no
    }

    /// The request with this number; `None` where it was answered already.
    pub(crate) fn get(&self, no: u32) -> Option<&Pending> {
        self.list.iter().find(|pending| pending.no == no)
    }

    /// The request as the brain is sent it.
    pub(crate) fn for_brain(&self, no: u32) -> Option<proto::ClientMessage> {
        self.get(no).map(|pending| proto::ClientMessage { message: Some(pending.message.as_ref().clone()) })
    }

    /// Takes out an answered request.
    pub(crate) fn finish(&mut self, no: u32) -> Option<Pending> {
        let place = self.list.iter().position(|pending| pending.no == no)?;
        Some(self.remove(place))
    }

    /// Takes out one request that has waited longer than [`PATIENCE`].
    pub(crate) fn expired(&mut self, now: Instant) -> Option<Pending> {
        let oldest = self.list.first()?;
        (now.duration_since(oldest.since) >= PATIENCE).then(|| self.remove(0))
    }

    /// When the oldest request will have waited too long.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.list.first().map(|oldest| oldest.since + PATIENCE)
    }

    fn remove(&mut self, place: usize) -> Pending {
        let pending = self.list.remove(place);
        self.bytes -= pending.bytes;
        if self.list.is_empty() {
            self.list = Vec::new();
        }
        pending
    }

    /// The numbers, oldest first.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.list.iter().map(|pending| pending.no)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// What they hold, in bytes.
    pub(crate) fn bytes(&self) -> usize {
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
        assert!(requests.expired(now + PATIENCE - Duration::from_millis(1)).is_none());
        assert_eq!(requests.expired(now + PATIENCE).map(|pending| pending.no), Some(numbers[0]));
        assert_eq!(requests.expired(now + PATIENCE).map(|pending| pending.no), Some(numbers[2]));
        assert_eq!((requests.len(), requests.bytes(), requests.list.capacity()), (0, 0, 0));
    }
}
