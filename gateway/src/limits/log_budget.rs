//! How many log lines about refusals may be written.

use std::net::IpAddr;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::address::AddressLimiter;

/// Lines of one address: per minute, and at once.
const LINES: (u32, u32) = (10, 10);
/// Addresses with a budget of their own. Further addresses share ten times the budget of one address.
const ADDRESSES: usize = 1_000;

/// The budget of log lines of every address. What it does not allow is only counted.
#[derive(Debug)]
pub struct LogBudget {
    limiter: AddressLimiter,
    suppressed: Counter,
}

impl LogBudget {
    /// A full budget. `suppressed` counts the lines that are not written.
    pub fn new(suppressed: Counter) -> Self {
        Self { limiter: AddressLimiter::new(f64::from(LINES.0) / 60.0, LINES.1, ADDRESSES), suppressed }
    }

    /// Whether a line about `address` may be written now.
    pub fn allows(&self, address: IpAddr) -> bool {
        let allowed = self.limiter.take(address, Instant::now()).is_ok();
        if !allowed {
            self.suppressed.inc();
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refusals_is_few_lines() {
        let suppressed = Counter::default();
        let budget = LogBudget::new(suppressed.clone());
        let address = "192.0.2.1".parse().expect("address");
        let written = (0..10_000).filter(|_| budget.allows(address)).count();
        assert_eq!((written, suppressed.get()), (10, 9_990));
        assert!(budget.allows("192.0.2.2".parse().expect("address")), "another address has its own budget");
    }
}
