//! How often each address may do something.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::bucket::TokenBucket;

/// The unit that is limited: an IPv4 address, or an IPv6 /64, which usually belongs to one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LimitedNetwork(IpAddr);

impl From<IpAddr> for LimitedNetwork {
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
    /// The largest number of buckets. While all are in use, further addresses share one bucket.
    capacity: usize,
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    of: HashMap<LimitedNetwork, TokenBucket>,
    /// For the addresses without a bucket of their own.
    shared: TokenBucket,
    /// When the full buckets were last removed.
    swept_at: Instant,
}

/// The shortest time between two sweeps, because a sweep visits every bucket.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl AddressLimiter {
    /// A limiter with at most `capacity` buckets.
    pub fn new(rate_per_second: f64, burst: u32, capacity: usize) -> Self {
        let buckets = Buckets {
            of: HashMap::new(),
            // Ten times the budget of one address: enough that not every new client is rejected.
            shared: TokenBucket::new(rate_per_second * 10.0, burst.saturating_mul(10)),
            swept_at: Instant::now(),
        };
        Self { rate_per_second, burst, capacity: capacity.max(1), buckets: Mutex::new(buckets) }
    }

    /// Takes one token of an address.
    ///
    /// # Errors
    /// If there is none: the time until the next token.
    pub fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let network = LimitedNetwork::from(address);
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

impl Buckets {
    /// Removes the full buckets. A new bucket is full, too.
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
        assert_eq!(accepted, 110, "each known address once, the other addresses ten times together");
        assert_eq!(limiter.take(IpAddr::V4(20_000.into()), now + Duration::from_secs(60)), Ok(()));
        assert_eq!(limiter.len(), 1);
    }
}
