//! The deadlines of a connection: pings, the idle timeout, the warning before its token expires, and the expiry. Pure
//! computation: the loop asks when to wake up and what is due.

use std::time::Duration;

use chatbox_shared::clock::Timestamp;
use rand::RngExt;
use tokio::time::Instant;

/// How long before the expiry a client is warned.
const WARNING: Duration = Duration::from_secs(60);
/// The longest wait until the token is checked again. A token may be valid for longer than a timer can wait.
const HORIZON: Duration = Duration::from_hours(24);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// A ping must be sent.
    Ping,
    /// Nothing was received for two intervals.
    IdleTimeout,
    /// The token expires soon.
    TokenWarning,
    /// The token has expired.
    TokenExpired,
}

/// The deadlines of one connection.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    /// When the client was last heard.
    heard: Instant,
    next_ping: Instant,
    expires_at: Timestamp,
    warned: bool,
    /// When the token is checked again. Timers use the monotonic clock, tokens the wall clock.
    check_token: Instant,
}

impl Heartbeat {
    /// Begins `now`. The first ping is due at a random time within the interval, so that clients that connected together
    /// are not pinged together.
    pub(super) fn new(interval: Duration, expires_at: Timestamp, now: Instant, wall: Timestamp) -> Self {
        let first = interval.mul_f64(rand::rng().random_range(0.1..1.0));
        let mut heartbeat =
            Self { interval, heard: now, next_ping: now + first, expires_at, warned: false, check_token: now };
        heartbeat.renew(expires_at, now, wall);
        heartbeat
    }

    /// Restarts the idle timeout: the client sent or accepted something.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Sets the expiry of a renewed token.
    pub(super) fn renew(&mut self, expires_at: Timestamp, now: Instant, wall: Timestamp) {
        self.expires_at = expires_at;
        self.warned = false;
        self.plan_token(now, wall);
    }

    fn plan_token(&mut self, now: Instant, wall: Timestamp) {
        let next = if self.warned { self.expires_at } else { self.expires_at.minus(WARNING) };
        self.check_token = now + next.since(wall).min(HORIZON);
    }

    /// When something will be due.
    pub(super) fn next(&self) -> Instant {
        self.next_ping.min(self.heard + 2 * self.interval).min(self.check_token)
    }

    /// One thing that is due. Must be called until it returns `None`.
    pub(super) fn due(&mut self, now: Instant, wall: Timestamp) -> Option<Due> {
        if now >= self.check_token {
            if wall >= self.expires_at {
                return Some(Due::TokenExpired);
            }
            let warn = !self.warned && wall >= self.expires_at.minus(WARNING);
            self.warned |= warn;
            self.plan_token(now, wall);
            // The wall clock has a resolution of one millisecond, so it may still be before the deadline.
            self.check_token = self.check_token.max(now + Duration::from_millis(1));
            if warn {
                return Some(Due::TokenWarning);
            }
        }
        if now >= self.heard + 2 * self.interval {
            return Some(Due::IdleTimeout);
        }
        if now >= self.next_ping {
            self.next_ping = now + self.interval;
            return Some(Due::Ping);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);

    /// Runs the heartbeat for `span` without hearing the client, and lists what was due after how many seconds.
    fn run(heartbeat: &mut Heartbeat, start: Instant, span: Duration) -> Vec<(u64, Due)> {
        let mut seen = Vec::new();
        let mut now = start;
        while now <= start + span {
            let since = now.duration_since(start);
            if let Some(due) = heartbeat.due(now, Timestamp(0).plus(since)) {
                seen.push((since.as_secs(), due));
                if matches!(due, Due::IdleTimeout | Due::TokenExpired) {
                    break;
                }
            } else {
                now = heartbeat.next();
            }
        }
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_client_is_pinged_and_closed_after_two_intervals() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(INTERVAL, Timestamp(i64::MAX), start, Timestamp(0));
        let seen = run(&mut heartbeat, start, Duration::from_secs(100));
        assert_eq!(seen.last(), Some(&(50, Due::IdleTimeout)));
        assert_eq!(seen.iter().filter(|(_, due)| *due == Due::Ping).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_warns_a_minute_before_it_expires() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(Duration::from_secs(900), Timestamp(100_000), start, Timestamp(0));
        heartbeat.next_ping = start + Duration::from_secs(899);
        assert_eq!(
            run(&mut heartbeat, start, Duration::from_secs(200)),
            [(40, Due::TokenWarning), (100, Due::TokenExpired)]
        );

        let mut heartbeat = Heartbeat::new(Duration::from_secs(900), Timestamp(100_000), start, Timestamp(0));
        heartbeat.next_ping = start + Duration::from_secs(899);
        assert_eq!(run(&mut heartbeat, start, Duration::from_secs(50)), [(40, Due::TokenWarning)]);
        heartbeat.renew(Timestamp(200_000), start + Duration::from_secs(50), Timestamp(50_000));
        let later = start + Duration::from_secs(140);
        assert_eq!(heartbeat.due(later, Timestamp(140_000)), Some(Due::TokenWarning));
        assert_eq!(heartbeat.due(later, Timestamp(140_000)), None);
    }
}
