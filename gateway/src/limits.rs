//! Token buckets: how often one address or one connection may do something.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A budget that refills steadily: `burst` at once, `rate_per_second` over time. Small, no allocation.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    /// When the bucket is (or was) full again. The later, the emptier. `None`: nothing was ever taken.
    full_at: Option<Instant>,
    /// Time one token takes to come back.
    interval: Duration,
    /// Tokens a full bucket holds.
    burst: u32,
}

impl TokenBucket {
    /// A full bucket. A rate that is not positive gives the burst once and then nothing for a day.
    pub fn new(rate_per_second: f64, burst: u32) -> Self {
        let interval = Duration::try_from_secs_f64(1.0 / rate_per_second).unwrap_or(Duration::from_hours(24));
        Self { full_at: None, interval, burst: burst.max(1) }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// Where there is none: how long until there will be one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        // With n tokens missing the bucket is full in n intervals, so one more may be taken while this is not beyond
        // the burst.
        let after = full_at + self.interval;
        let missing = after.duration_since(now);
        let capacity = self.interval.saturating_mul(self.burst);
        if missing > capacity {
            return Err(missing - capacity);
        }
        self.full_at = Some(after);
        Ok(())
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }
}

/// What an address counts as: itself, or for IPv6 its /64, which one subscriber commonly has to himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let prefix = address.to_bits() & (u128::MAX << 64);
                Self(IpAddr::V6(Ipv6Addr::from_bits(prefix)))
            }
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
        }
    }
}

/// One bucket for each address, in bounded memory.
#[derive(Debug)]
pub struct AddressLimiter {
    rate_per_second: f64,
    burst: u32,
    /// Most buckets kept. When all are in use at once, strangers share one.
    capacity: usize,
    buckets: Mutex<Buckets<Network>>,
}

#[derive(Debug)]
struct Buckets<K> {
    of: HashMap<K, TokenBucket>,
    /// For the addresses that found no room.
    shared: TokenBucket,
    /// Full buckets are thrown out at most this often: looking through all of them takes time.
    swept_at: Instant,
}

/// Shortest time between two sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl AddressLimiter {
    /// A limiter that remembers at most `capacity` addresses.
    pub fn new(rate_per_second: f64, burst: u32, capacity: usize) -> Self {
        let buckets = Buckets {
            of: HashMap::new(),
            // As many strangers as there are buckets are too many for one share; ten shares keep the door ajar.
            shared: TokenBucket::new(rate_per_second * 10.0, burst.saturating_mul(10)),
            swept_at: Instant::now(),
        };
        Self { rate_per_second, burst, capacity: capacity.max(1), buckets: Mutex::new(buckets) }
    }

    /// Takes one token of this address.
    ///
    /// # Errors
    /// Where it has none: how long until it will have one.
    pub fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let network = Network::from(address);
        let mut buckets = self.buckets.lock();
        if let Some(bucket) = buckets.of.get_mut(&network) {
            return bucket.take(now);
        }
        if buckets.of.len() >= self.capacity {
            buckets.sweep(now);
        }
        if buckets.of.len() >= self.capacity {
            return buckets.shared.take(now);
        }
        let bucket = buckets.of.entry(network).or_insert_with(|| TokenBucket::new(self.rate_per_second, self.burst));
        bucket.take(now)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.buckets.lock().of.len()
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// Forgets the buckets that are full: a new one would be the same.
    fn sweep(&mut self, now: Instant) {
        if now.duration_since(self.swept_at) >= SWEEP_INTERVAL {
            self.swept_at = now;
            self.of.retain(|_, bucket| !bucket.is_full(now));
        }
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
        // After a long rest it holds the burst again, not more.
        let later = now + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| bucket.take(later).is_ok()).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_bucket_is_full_also_for_one_who_took_the_time_before() {
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

    #[tokio::test(start_paused = true)]
    async fn addresses_do_not_take_from_each_other_but_one_ipv6_network_is_one() {
        let limiter = AddressLimiter::new(1.0, 1, 10);
        let now = Instant::now();
        let take = |address: &str| limiter.take(address.parse().expect("address"), now).is_ok();
        assert!(take("192.0.2.1"));
        assert!(!take("192.0.2.1"));
        assert!(!take("::ffff:192.0.2.1"));
        assert!(take("192.0.2.2"));
        assert!(take("2001:db8::1"));
        assert!(!take("2001:db8::2"));
        assert!(take("2001:db8:0:1::1"));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_freed_again() {
        let limiter = AddressLimiter::new(1.0, 1, 100);
        let now = Instant::now();
        let accepted = (0..10_000u32).filter(|n| limiter.take(IpAddr::V4((*n).into()), now).is_ok()).count();
        assert_eq!(limiter.len(), 100);
        assert_eq!(accepted, 110, "each known address once, the strangers ten times together");
        assert_eq!(limiter.take(IpAddr::V4(20_000.into()), now + Duration::from_secs(60)), Ok(()));
        assert_eq!(limiter.len(), 1);
    }

    proptest! {
        /// Whatever the moments of asking, no more than burst + rate × time is given.
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
