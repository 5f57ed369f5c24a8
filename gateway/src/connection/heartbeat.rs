//! What a connection must do when time passes: ping, give up on a silent client, warn of the token's end and act on it.
//! Pure bookkeeping; the loop asks when to wake up and what is due.

use std::time::Duration;

use chatbox_shared::clock::Timestamp;
use rand::RngExt;
use tokio::time::Instant;

/// How long before its end a client is told that its token expires.
const WARNING: Duration = Duration::from_secs(60);
/// The farthest the loop looks ahead; a token may be valid for longer than a timer can wait.
const HORIZON: Duration = Duration::from_hours(24);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send a ping.
    Ping,
    /// The client has been silent for two intervals.
    Silent,
    /// The token expires soon.
    Warn,
    /// The token has expired.
    Expired,
}

/// The times of one connection.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    interval: Duration,
    heard: Instant,
    next_ping: Instant,
    expires_at: Timestamp,
    warned: bool,
    /// When to look at the token again, by the timer's clock.
    check_token: Instant,
}

impl Heartbeat {
    /// Begins now. The first ping comes at a random time within the interval, so that clients who connected together
    /// are not pinged together for ever.
    pub(crate) fn new(interval: Duration, expires_at: Timestamp, now: Instant, wall: Timestamp) -> Self {
        let first = interval.mul_f64(rand::rng().random_range(0.1..1.0));
        let mut heartbeat =
            Self { interval, heard: now, next_ping: now + first, expires_at, warned: false, check_token: now };
        heartbeat.renew(expires_at, now, wall);
        heartbeat
    }

    /// The client said something, or took something that was waiting for it.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The token was renewed.
    pub(crate) fn renew(&mut self, expires_at: Timestamp, now: Instant, wall: Timestamp) {
        self.expires_at = expires_at;
        self.warned = false;
        self.plan_token(now, wall);
    }

    fn plan_token(&mut self, now: Instant, wall: Timestamp) {
        let next = if self.warned { self.expires_at } else { self.expires_at.minus(WARNING) };
        self.check_token = now + next.since(wall).min(HORIZON);
    }

    /// When to ask [`Heartbeat::due`] again.
    pub(crate) fn next(&self) -> Instant {
        self.next_ping.min(self.heard + 2 * self.interval).min(self.check_token)
    }

    /// One thing that is due, until there is none.
    pub(crate) fn due(&mut self, now: Instant, wall: Timestamp) -> Option<Due> {
        if now >= self.check_token {
            if wall >= self.expires_at {
                return Some(Due::Expired);
            }
            let warn = !self.warned && wall >= self.expires_at.minus(WARNING);
            self.warned |= warn;
            self.plan_token(now, wall);
            // The wall clock may lag behind the timer by less than it can show.
            self.check_token = self.check_token.max(now + Duration::from_millis(1));
            if warn {
                return Some(Due::Warn);
            }
        }
        if now >= self.heard + 2 * self.interval {
            return Some(Due::Silent);
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

    /// Runs the heartbeat from event to event for `span`, the client last heard at the start, and lists what was due.
    fn run(heartbeat: &mut Heartbeat, start: Instant, span: Duration) -> Vec<(u64, Due)> {
        let mut seen = Vec::new();
        let mut now = start;
        while now <= start + span {
            let since = now.duration_since(start);
            if let Some(due) = heartbeat.due(now, Timestamp(0).plus(since)) {
                seen.push((since.as_secs(), due));
                if matches!(due, Due::Silent | Due::Expired) {
                    break;
                }
            } else {
                now = heartbeat.next();
            }
        }
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_pinged_and_given_up_after_two_intervals() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(INTERVAL, Timestamp(i64::MAX), start, Timestamp(0));
        let seen = run(&mut heartbeat, start, Duration::from_secs(100));
        assert_eq!(seen.last(), Some(&(50, Due::Silent)));
        assert_eq!(seen.iter().filter(|(_, due)| *due == Due::Ping).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_warns_a_minute_before_and_then_ends() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(Duration::from_secs(900), Timestamp(100_000), start, Timestamp(0));
        heartbeat.next_ping = start + Duration::from_secs(899);
        assert_eq!(run(&mut heartbeat, start, Duration::from_secs(200)), [(40, Due::Warn), (100, Due::Expired)]);

        let mut heartbeat = Heartbeat::new(Duration::from_secs(900), Timestamp(100_000), start, Timestamp(0));
        heartbeat.next_ping = start + Duration::from_secs(899);
        assert_eq!(run(&mut heartbeat, start, Duration::from_secs(50)), [(40, Due::Warn)]);
        heartbeat.renew(Timestamp(200_000), start + Duration::from_secs(50), Timestamp(50_000));
        let later = start + Duration::from_secs(140);
        assert_eq!(heartbeat.due(later, Timestamp(140_000)), Some(Due::Warn));
        assert_eq!(heartbeat.due(later, Timestamp(140_000)), None);
    }
}
