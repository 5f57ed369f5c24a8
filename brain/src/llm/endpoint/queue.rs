//! The queue of an endpoint: a bounded number of running calls, a bounded number of waiting ones. Free slots go round
//! the waiting users, so one user with a hundred waiting calls does not delay the others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The limits of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// Running calls.
    pub max_concurrent: usize,
    /// Waiting calls.
    pub max_queued: usize,
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// The slots of one endpoint.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
}

#[derive(Debug)]
struct QueueState {
    settings: QueueSettings,
    running: usize,
    /// Users with waiting calls, the next one first.
    round: VecDeque<String>,
    lines: HashMap<String, VecDeque<oneshot::Sender<Slot>>>,
}

/// The slot of a running call. Dropping it passes the slot to the next waiting call.
#[derive(Debug)]
pub(super) struct Slot {
    /// `None` once passed on.
    queue: Option<Arc<Queue>>,
}

impl Queue {
    pub(super) fn new(settings: QueueSettings) -> Self {
        Self { state: Mutex::new(QueueState { settings, running: 0, round: VecDeque::new(), lines: HashMap::new() }) }
    }

    /// Waits for a slot. Cancel safe.
    pub(super) async fn enter(self: &Arc<Self>, user: &str) -> Result<Slot, Full> {
        let waiting = {
            let mut state = self.state.lock();
            if state.running < state.settings.max_concurrent && state.waiting() == 0 {
                state.running += 1;
                return Ok(Slot { queue: Some(Arc::clone(self)) });
            }
            if state.waiting() >= state.settings.max_queued {
                return Err(Full);
            }
            state.join(user)
        };
        // Slots may be free although calls wait: a waiting call was cancelled, or the limits have grown.
        self.hand_out();
        waiting.await.map_err(|_| Full)
    }

    /// The numbers of running and of waiting calls.
    pub(super) fn load(&self) -> (usize, usize) {
        let mut state = self.state.lock();
        (state.running, state.waiting())
    }

    pub(super) fn set(self: &Arc<Self>, settings: QueueSettings) {
        self.state.lock().settings = settings;
        self.hand_out();
    }

    /// Passes free slots to waiting calls.
    fn hand_out(self: &Arc<Self>) {
        let mut state = self.state.lock();
        while state.running < state.settings.max_concurrent {
            let Some(next) = state.next() else { return };
            match next.send(Slot { queue: Some(Arc::clone(self)) }) {
                Ok(()) => state.running += 1,
                // The call was cancelled at this moment. Dropping the slot must not enter this function again.
                Err(mut slot) => slot.queue = None,
            }
        }
    }
}

impl QueueState {
    /// The number of waiting calls that are not cancelled.
    fn waiting(&mut self) -> usize {
        self.lines.retain(|_, line| {
            line.retain(|waiting| !waiting.is_closed());
            !line.is_empty()
        });
        let lines = &self.lines;
        self.round.retain(|user| lines.contains_key(user));
        self.lines.values().map(VecDeque::len).sum()
    }

    fn join(&mut self, user: &str) -> oneshot::Receiver<Slot> {
        let (sender, receiver) = oneshot::channel();
        if !self.lines.contains_key(user) {
            self.round.push_back(user.to_owned());
        }
        self.lines.entry(user.to_owned()).or_default().push_back(sender);
        receiver
    }

    /// The next call of the next user, who then moves to the end of the round.
    fn next(&mut self) -> Option<oneshot::Sender<Slot>> {
        loop {
            let user = self.round.pop_front()?;
            let Some(line) = self.lines.get_mut(&user) else { continue };
            let next = line.pop_front();
            if line.is_empty() {
                self.lines.remove(&user);
            } else {
                self.round.push_back(user);
            }
            if next.is_some() {
                return next;
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.state.lock().running -= 1;
            queue.hand_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    fn queue(max_concurrent: usize, max_queued: usize) -> Arc<Queue> {
        Arc::new(Queue::new(QueueSettings { max_concurrent, max_queued }))
    }

    #[tokio::test]
    async fn places_and_waiting_are_bounded() {
        let queue = queue(2, 1);
        let (one, _two) = (queue.enter("a").await.unwrap(), queue.enter("a").await.unwrap());
        let mut third = pin!(queue.enter("b"));
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(queue.enter("c").await.err(), Some(Full));
        assert_eq!(queue.load(), (2, 1));
        drop(one);
        let _third = third.await.unwrap();
        assert_eq!(queue.load(), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_with_many_waiting_calls_does_not_keep_others_behind_them() {
        let queue = queue(1, 1000);
        let first = queue.enter("hot").await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for (user, calls) in [("hot", 100), ("a", 2), ("b", 1)] {
            for _ in 0..calls {
                let (queue, order) = (Arc::clone(&queue), Arc::clone(&order));
                tasks.spawn(async move {
                    let _slot = queue.enter(user).await.unwrap();
                    order.lock().push(user);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                });
                tokio::task::yield_now().await;
            }
        }
        drop(first);
        while tasks.join_next().await.is_some() {}
        assert_eq!(order.lock()[..6], ["hot", "a", "b", "hot", "a", "hot"]);
        assert_eq!(order.lock().len(), 103);
        assert_eq!(queue.load(), (0, 0));
    }

    #[tokio::test]
    async fn those_who_give_up_leave_no_trace() {
        let queue = queue(1, 2);
        let first = queue.enter("a").await.unwrap();
        for _ in 0..50 {
            let mut waiting = Box::pin(queue.enter("b"));
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        let mut patient = pin!(queue.enter("c"));
        assert!(patient.as_mut().now_or_never().is_none());
        drop(first);
        let place = patient.await.unwrap();
        drop(place);
        assert_eq!(queue.load(), (0, 0));
        // A place that was handed over and never taken goes on to the next.
        let first = queue.enter("a").await.unwrap();
        let mut given = Box::pin(queue.enter("b"));
        assert!(given.as_mut().now_or_never().is_none());
        drop(first);
        drop(given);
        assert_eq!(queue.load(), (0, 0));
    }

    #[tokio::test]
    async fn more_places_are_handed_out_at_once() {
        let queue = queue(1, 5);
        let _first = queue.enter("a").await.unwrap();
        let mut second = pin!(queue.enter("b"));
        assert!(second.as_mut().now_or_never().is_none());
        queue.set(QueueSettings { max_concurrent: 2, max_queued: 5 });
        assert!(second.now_or_never().is_some());
    }
}
