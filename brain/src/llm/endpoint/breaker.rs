//! A circuit breaker: after several consecutive failures an endpoint is not called for a while, then one call probes
//! it. Pure state: the time is a parameter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When the breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Consecutive failures that open the breaker.
    pub failures: u32,
    /// How long the breaker stays open before a probe.
    pub open_for: Duration,
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// One call passes as a probe.
    HalfOpen,
}

impl Circuit {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What the outcome of a call says about its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint answers.
    Healthy,
    /// The endpoint is unreachable, overloaded, breaks off, or fails.
    Failed,
    /// Nothing: the request itself was rejected, or the caller cancelled the call.
    Neutral,
}

/// The circuit breaker of one endpoint.
#[derive(Debug)]
pub(super) struct Breaker {
    state: Mutex<BreakerState>,
    probes: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
enum BreakerState {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// `probe`: the number of the running probe.
    HalfOpen {
        probe: Option<u64>,
    },
}

/// The permission for one call, to be returned with a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    /// The number of a probe. A probe of an earlier opening decides nothing.
    probe: Option<u64>,
}

impl Pass {
    /// Is the call a probe?
    pub(super) fn is_probe(self) -> bool {
        self.probe.is_some()
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: Mutex::new(BreakerState::Closed { failures: 0 }), probes: AtomicU64::new(0) }
    }
}

impl Breaker {
    /// Admits a call.
    ///
    /// # Errors
    /// How long no call will be admitted.
    pub(super) fn admit(&self, now: Instant) -> Result<Pass, Duration> {
        let mut state = self.state.lock();
        match *state {
            BreakerState::Closed { .. } => Ok(Pass { probe: None }),
            BreakerState::Open { until } if now < until => Err(until - now),
            BreakerState::HalfOpen { probe: Some(_) } => Err(Duration::ZERO),
            BreakerState::Open { .. } | BreakerState::HalfOpen { probe: None } => {
                let probe = Some(self.probes.fetch_add(1, Ordering::Relaxed));
                *state = BreakerState::HalfOpen { probe };
                Ok(Pass { probe })
            }
        }
    }

    /// Whether a call would be admitted now. Changes nothing.
    pub(super) fn check(&self, now: Instant) -> Result<(), Duration> {
        match *self.state.lock() {
            BreakerState::Open { until } if now < until => Err(until - now),
            BreakerState::HalfOpen { probe: Some(_) } => Err(Duration::ZERO),
            _ => Ok(()),
        }
    }

    /// Records the verdict of a call. A call may have several: healthy at its first text, failed at its end.
    pub(super) fn report(&self, pass: Pass, verdict: Verdict, settings: &BreakerSettings, now: Instant) {
        let mut state = self.state.lock();
        let open = BreakerState::Open { until: now + settings.open_for };
        *state = match (*state, verdict) {
            (BreakerState::HalfOpen { probe: Some(probe) }, verdict) if pass.probe == Some(probe) => match verdict {
                Verdict::Healthy => BreakerState::Closed { failures: 0 },
                Verdict::Failed => open,
                Verdict::Neutral => BreakerState::HalfOpen { probe: None },
            },
            (BreakerState::Closed { .. }, Verdict::Healthy) => BreakerState::Closed { failures: 0 },
            (BreakerState::Closed { failures }, Verdict::Failed) if failures + 1 >= settings.failures => open,
            (BreakerState::Closed { failures }, Verdict::Failed) => BreakerState::Closed { failures: failures + 1 },
            // A neutral verdict, or one from before the breaker opened, changes nothing.
            (unchanged, _) => unchanged,
        };
    }

    /// The state now.
    pub(super) fn circuit(&self, now: Instant) -> Circuit {
        match *self.state.lock() {
            BreakerState::Closed { .. } => Circuit::Closed,
            BreakerState::Open { until } if now < until => Circuit::Open,
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings { failures: 3, open_for: Duration::from_secs(10) };

    struct World {
        breaker: Breaker,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { breaker: Breaker::default(), now: Instant::now() }
        }

        fn call(&self, verdict: Verdict) {
            let pass = self.breaker.admit(self.now).expect("it lets calls through");
            self.breaker.report(pass, verdict, &SETTINGS, self.now);
        }

        fn circuit(&self) -> Circuit {
            self.breaker.circuit(self.now)
        }
    }

    #[tokio::test]
    async fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let world = World::new();
        for _ in 0..3 {
            world.call(Verdict::Failed);
            world.call(Verdict::Failed);
            world.call(Verdict::Neutral);
            world.call(Verdict::Healthy);
        }
        assert_eq!(world.circuit(), Circuit::Closed);
        (0..3).for_each(|_| world.call(Verdict::Failed));
        assert_eq!(world.circuit(), Circuit::Open);
        assert_eq!(world.breaker.admit(world.now), Err(SETTINGS.open_for));
    }

    #[tokio::test]
    async fn after_its_time_one_call_tries_and_decides() {
        let mut world = World::new();
        (0..3).for_each(|_| world.call(Verdict::Failed));
        world.now += SETTINGS.open_for;
        assert_eq!(world.circuit(), Circuit::HalfOpen);
        let probe = world.breaker.admit(world.now).expect("the probe");
        assert!(world.breaker.admit(world.now).is_err(), "one at a time");
        world.breaker.report(probe, Verdict::Failed, &SETTINGS, world.now);
        assert_eq!(world.circuit(), Circuit::Open);

        world.now += SETTINGS.open_for;
        let probe = world.breaker.admit(world.now).expect("the next probe");
        world.breaker.report(probe, Verdict::Neutral, &SETTINGS, world.now);
        let probe = world.breaker.admit(world.now).expect("another one, since the last said nothing");
        world.breaker.report(probe, Verdict::Healthy, &SETTINGS, world.now);
        assert_eq!(world.circuit(), Circuit::Closed);
    }

    #[tokio::test]
    async fn a_probe_of_an_earlier_opening_decides_nothing() {
        let mut world = World::new();
        (0..3).for_each(|_| world.call(Verdict::Failed));
        world.now += SETTINGS.open_for;
        let old = world.breaker.admit(world.now).expect("a probe");
        world.breaker.report(old, Verdict::Healthy, &SETTINGS, world.now);
        (0..3).for_each(|_| world.call(Verdict::Failed));
        world.now += SETTINGS.open_for;
        let new = world.breaker.admit(world.now).expect("another probe");
        for verdict in [Verdict::Healthy, Verdict::Failed, Verdict::Neutral] {
            world.breaker.report(old, verdict, &SETTINGS, world.now);
            assert_eq!((world.circuit(), world.breaker.admit(world.now).is_err()), (Circuit::HalfOpen, true));
        }
        world.breaker.report(new, Verdict::Healthy, &SETTINGS, world.now);
        assert_eq!(world.circuit(), Circuit::Closed);
    }

    #[tokio::test]
    async fn calls_from_before_it_opened_say_nothing_more() {
        let world = World::new();
        let old = world.breaker.admit(world.now).expect("closed");
        (0..3).for_each(|_| world.call(Verdict::Failed));
        world.breaker.report(old, Verdict::Healthy, &SETTINGS, world.now);
        assert_eq!(world.circuit(), Circuit::Open);
    }
}
