//! The store's clock, estimated. Leases and entry times follow the store's time, so brains with wrong clocks agree. The
//! estimate is an offset to this machine's monotonic clock, which nobody sets; a brain whose wall clock jumps does not
//! notice. Between two readings of the store it can only be off by the drift of one interval, and even a wrong estimate
//! costs at most an early takeover: the fence decides who may write.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chatbox_shared::clock::{Clock, Timestamp};

/// The store's time, between readings of it.
#[derive(Debug)]
pub struct StoreClock {
    start: Instant,
    /// Store time in ms at `start`.
    offset: AtomicI64,
}

impl StoreClock {
    /// Starts from a first guess until the store was asked.
    pub fn new(guess: Timestamp) -> Self {
        Self { start: Instant::now(), offset: AtomicI64::new(guess.0) }
    }

    /// Takes a reading. Half of the time the question took is counted as its way back.
    pub fn set(&self, store_now: Timestamp, asked: Instant, took: Duration) {
        let at = asked.duration_since(self.start) + took / 2;
        self.offset.store(store_now.minus(at).0, Ordering::Relaxed);
    }
}

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.offset.load(Ordering::Relaxed)).plus(self.start.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_store_and_not_this_machine() {
        let clock = StoreClock::new(Timestamp(0));
        clock.set(Timestamp(1_000_000_000), Instant::now(), Duration::ZERO);
        let now = clock.now().0;
        assert!((1_000_000_000..1_000_060_000).contains(&now), "{now}");
    }
}
