//! The store's clock, estimated. Leases and the times of entries use the store's time, so brains with wrong clocks agree. The
//! estimate is an offset to this machine's monotonic clock, so a jump of the wall clock does not matter. Between two readings
//! the estimate is wrong by the drift of one interval at most. A wrong estimate costs no more than an early takeover of an
//! answer, because the fence decides who may write.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chatbox_shared::clock::{Clock, Timestamp};

/// The estimated time of the store.
#[derive(Debug)]
pub struct StoreClock {
    start: Instant,
    /// The store's time at `start`, in milliseconds.
    offset: AtomicI64,
}

impl StoreClock {
    /// Uses `guess` until the first reading.
    pub fn new(guess: Timestamp) -> Self {
        Self { start: Instant::now(), offset: AtomicI64::new(guess.0) }
    }

    /// Takes a reading that was requested at `asked` and arrived after `took`. Half of `took` is counted as the way back.
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
