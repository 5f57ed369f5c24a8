//! What all calls to one endpoint share, whichever model they are for: a circuit breaker and a bounded, fair queue.
//! Endpoints outlive a reload of the configuration, and so does their state.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

mod breaker;
pub mod metrics;
mod queue;

pub use breaker::{BreakerSettings, Circuit, Verdict};
pub use queue::QueueSettings;

use breaker::{Breaker, Pass};
use queue::{Queue, Slot};

/// The limits of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointSettings {
    /// The limits of the circuit breaker.
    pub breaker: BreakerSettings,
    /// The limits of the queue.
    pub queue: QueueSettings,
}

/// One endpoint: a protocol and an address.
#[derive(Debug)]
pub struct Endpoint {
    /// The name in metrics and logs: protocol and address. The configuration allows no secret in an address.
    pub name: String,
    breaker: Breaker,
    breaker_settings: RwLock<BreakerSettings>,
    queue: Arc<Queue>,
}

/// Why no call is admitted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// The circuit breaker is open, for this long.
    #[error("the circuit is open, for {0:?} more")]
    CircuitOpen(Duration),
    /// The queue is full.
    #[error("the queue is full")]
    Full,
}

/// The admission of one call. Occupies a slot until dropped, and reports the call's outcome to the circuit breaker.
#[derive(Debug)]
pub struct Admission {
    endpoint: Arc<Endpoint>,
    pass: Pass,
    told: bool,
    _slot: Slot,
}

impl Endpoint {
    /// A new endpoint with a closed circuit breaker.
    pub fn new(name: impl Into<String>, settings: &EndpointSettings) -> Self {
        Self {
            name: name.into(),
            breaker: Breaker::default(),
            breaker_settings: RwLock::new(settings.breaker),
            queue: Arc::new(Queue::new(settings.queue)),
        }
    }

    /// Waits for a slot. Cancel safe.
    ///
    /// # Errors
    /// Where the circuit breaker is open or the queue is full.
    pub async fn admit(self: &Arc<Self>, user: &str) -> Result<Admission, AdmitError> {
        self.breaker.check(Instant::now()).map_err(AdmitError::CircuitOpen)?;
        let slot = self.queue.enter(user).await.map_err(|queue::Full| AdmitError::Full)?;
        // Checked again: the circuit breaker may have opened during the wait.
        let pass = self.breaker.admit(Instant::now()).map_err(AdmitError::CircuitOpen)?;
        Ok(Admission { endpoint: Arc::clone(self), pass, told: false, _slot: slot })
    }

    /// The state of the circuit breaker.
    pub fn circuit(&self) -> Circuit {
        self.breaker.circuit(Instant::now())
    }

    /// The numbers of running and of queued calls.
    pub fn load(&self) -> (usize, usize) {
        self.queue.load()
    }

    fn set(&self, settings: &EndpointSettings) {
        *self.breaker_settings.write() = settings.breaker;
        self.queue.set(settings.queue);
    }
}

impl Admission {
    /// The first text has arrived. This closes the circuit breaker for a probe; any other call may still fail.
    pub fn first_text_arrived(&mut self) {
        if self.pass.is_probe() {
            self.tell(Verdict::Healthy);
        }
    }

    /// Reports the outcome of the call.
    pub fn tell(&mut self, verdict: Verdict) {
        self.told = true;
        let before = self.endpoint.circuit();
        self.endpoint.breaker.report(self.pass, verdict, &self.endpoint.breaker_settings.read(), Instant::now());
        let after = self.endpoint.circuit();
        if before != after {
            tracing::warn!(
                endpoint = self.endpoint.name,
                circuit = after.as_str(),
                "the circuit breaker changed its state"
            );
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.told {
            // A probe without an outcome: another call may probe.
            self.tell(Verdict::Neutral);
        }
    }
}

/// All endpoints of this process.
#[derive(Debug, Default)]
pub struct Endpoints {
    by_name: Mutex<HashMap<String, Arc<Endpoint>>>,
}

impl Endpoints {
    /// The endpoint with this name; its limits become these.
    pub fn get(&self, name: &str, settings: &EndpointSettings) -> Arc<Endpoint> {
        let mut by_name = self.by_name.lock();
        if let Some(known) = by_name.get(name) {
            known.set(settings);
            return Arc::clone(known);
        }
        let endpoint = Arc::new(Endpoint::new(name, settings));
        by_name.insert(name.to_owned(), Arc::clone(&endpoint));
        endpoint
    }

    /// The endpoints that a model still uses, sorted by name.
    pub fn in_use(&self) -> Vec<Arc<Endpoint>> {
        let mut by_name = self.by_name.lock();
        // The map holds one reference.
        by_name.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
        let mut all: Vec<_> = by_name.values().cloned().collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Limits nobody runs into.
    pub(crate) const WIDE: EndpointSettings = EndpointSettings {
        breaker: BreakerSettings { failures: 1000, open_for: Duration::from_secs(1) },
        queue: QueueSettings { max_concurrent: 1000, max_queued: 1000 },
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIGHT: EndpointSettings = EndpointSettings {
        breaker: BreakerSettings { failures: 1, open_for: Duration::from_secs(5) },
        queue: QueueSettings { max_concurrent: 1, max_queued: 1 },
    };

    #[tokio::test(start_paused = true)]
    async fn who_waited_while_it_opened_is_turned_away() {
        let endpoint = Arc::new(Endpoint::new("e", &TIGHT));
        let mut first = endpoint.admit("a").await.unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        waiting.spawn({
            let endpoint = Arc::clone(&endpoint);
            async move { endpoint.admit("b").await.map(drop) }
        });
        tokio::task::yield_now().await;
        first.tell(Verdict::Failed);
        drop(first);
        assert_eq!(waiting.join_next().await.unwrap().unwrap(), Err(AdmitError::CircuitOpen(Duration::from_secs(5))));
        tokio::time::advance(Duration::from_secs(5)).await;
        drop(endpoint.admit("a").await.unwrap());
        let mut probe = endpoint.admit("a").await.expect("a probe that was given up makes room for another");
        probe.tell(Verdict::Healthy);
        assert_eq!(endpoint.circuit(), Circuit::Closed);
    }

    #[tokio::test]
    async fn an_endpoint_outlives_a_reload_as_long_as_a_model_uses_it() {
        let endpoints = Endpoints::default();
        let first = endpoints.get("e", &TIGHT);
        first.admit("a").await.unwrap().tell(Verdict::Failed);
        let again = endpoints.get("e", &testing::WIDE);
        assert!(Arc::ptr_eq(&first, &again) && again.circuit() == Circuit::Open);
        drop((first, again));
        assert!(endpoints.in_use().is_empty());
    }
}
