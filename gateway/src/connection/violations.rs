//! How often a client has violated the contract within the last minute.

use std::time::Duration;

use tokio::time::Instant;

/// The time over which violations are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// A request over the rate is only rejected. The connection is closed when such requests exceed the allowed number of
/// invalid frames by this factor.
const FLOOD_FACTOR: u32 = 10;

/// A kind of violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// A frame outside the contract.
    Invalid,
    /// A request over the rate.
    RateLimited,
}

/// The violations of one connection.
#[derive(Debug)]
pub(super) struct Violations {
    since: Instant,
    invalid: u32,
    limited: u32,
    frames: u32,
}

impl Violations {
    /// No violations; the first window begins `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, invalid: 0, limited: 0, frames: 0 }
    }

    /// Counts a text frame, valid or not.
    pub(super) fn count_frame(&mut self) {
        self.frames = self.frames.saturating_add(1);
    }

    /// The number of text frames received.
    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    /// Counts a violation. Returns whether the connection must be closed, with `allowed` invalid frames per window.
    pub(super) fn count(&mut self, violation: Violation, now: Instant, allowed: u32) -> bool {
        if now.duration_since(self.since) >= WINDOW {
            (self.since, self.invalid, self.limited) = (now, 0, 0);
        }
        match violation {
            Violation::Invalid => self.invalid += 1,
            Violation::RateLimited => self.limited += 1,
        }
        self.invalid > allowed || self.limited > allowed.saturating_mul(FLOOD_FACTOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn violations_are_counted_within_a_minute() {
        let start = Instant::now();
        let mut violations = Violations::new(start);
        assert!(!violations.count(Violation::Invalid, start, 1));
        assert!(violations.count(Violation::Invalid, start, 1));
        let later = start + WINDOW;
        assert!(!violations.count(Violation::Invalid, later, 1));
        assert!((0..10).all(|_| !violations.count(Violation::RateLimited, later, 1)));
        assert!(violations.count(Violation::RateLimited, later, 1));
    }
}
