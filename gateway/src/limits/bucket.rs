//! A token bucket: how often something may be done.

use std::time::Duration;

use tokio::time::Instant;

/// A budget that refills steadily: `burst` at once, `rate_per_second` over time. Owns no memory outside of this struct.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    /// When the bucket will be full again. `None`: nothing was ever taken.
    full_at: Option<Instant>,
    /// The time in which one token refills.
    interval: Duration,
    /// The tokens in a full bucket.
    burst: u32,
}

impl TokenBucket {
    /// A full bucket. With a rate that is not positive it gives the burst, and then nothing for a day.
    pub fn new(rate_per_second: f64, burst: u32) -> Self {
        let interval = Duration::try_from_secs_f64(1.0 / rate_per_second).unwrap_or(Duration::from_hours(24));
        Self { full_at: None, interval, burst: burst.max(1) }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// If there is none: the time until the next token.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        // A bucket that misses n tokens is full again in n intervals. So a token may be taken as long as at most
        // `burst` tokens are missing afterwards.
        let after = full_at + self.interval;
        let missing = after.duration_since(now);
        let capacity = self.interval.saturating_mul(self.burst);
        if missing > capacity {
            return Err(missing - capacity);
        }
        self.full_at = Some(after);
        Ok(())
    }

    /// Whether the bucket is full.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(2.0, 3);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(bucket.take(now), Ok(()));
        }
        assert_eq!(bucket.take(now), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(now + Duration::from_millis(499)), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(now + Duration::from_millis(500)), Ok(()));
        assert_eq!(bucket.take(now + Duration::from_millis(500)), Err(Duration::from_millis(500)));
        // After a long pause it holds the burst again, not more.
        let later = now + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| bucket.take(later).is_ok()).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_bucket_is_full_also_for_an_earlier_time() {
        let before = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(TokenBucket::new(1.0, 1).take(before), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_without_a_rate_gives_its_burst_once() {
        let mut bucket = TokenBucket::new(0.0, 1);
        assert_eq!(bucket.take(Instant::now()), Ok(()));
        assert!(bucket.take(Instant::now() + Duration::from_secs(60)).is_err());
    }

    proptest! {
        /// At no time more than burst + rate × time is given.
        #[test]
        fn never_more_than_the_budget(pauses in proptest::collection::vec(0u64..400, 1..200), burst in 1u32..20, rate in 1u32..50) {
            let mut bucket = TokenBucket::new(f64::from(rate), burst);
            let start = Instant::now();
            let (mut at, mut given) = (start, 0u32);
            for pause in pauses {
                at += Duration::from_millis(pause);
                given += u32::from(bucket.take(at).is_ok());
                let budget = f64::from(burst) + f64::from(rate) * (at - start).as_secs_f64();
                prop_assert!(f64::from(given) <= budget + 1e-6);
            }
        }
    }
}
