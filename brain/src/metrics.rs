//! Every metric of the brain except those of the store and of the endpoints. Label values come from closed sets or from
//! the configuration (models), so there are few. Outcome series exist from the start; other series exist once something
//! was counted.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The metrics of the brain.
#[derive(Debug)]
pub struct Metrics {
    connections: Gauge,
    links: Gauge,
    /// The Unix time in seconds at which the certificate of `link.tls` expires; 0 without one.
    pub certificate_expiry: Gauge,
    sessions: Gauge,
    requests: Family<RequestLabels, Histogram, Buckets>,
    answers_running: Gauge,
    answers: Family<OutcomeLabels, Counter>,
    answers_adopted: Counter,
    fallbacks: Counter,
    calls: Family<CallLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    quota_refusals: Counter,
    reloads: Family<ReloadLabels, Counter>,
}

/// A finished call of a provider, as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct ProviderCall<'a> {
    /// The id of the model.
    pub model: &'a str,
    /// How the call ended: the name of a `ledger::CallFinish`.
    pub finish: &'static str,
    /// The class of its error; empty where it did not fail.
    pub error: &'static str,
    /// Tokens of the prompt, cached ones included.
    pub input: u64,
    /// Tokens of the prompt that came from the provider's cache.
    pub cached: u64,
    /// Tokens of the answer.
    pub output: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    /// The configured id, so there are few.
    model: String,
    finish: &'static str,
    error: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    model: String,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    ok: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        // 0.5 ms to 8 s.
        Histogram::new(exponential_buckets(0.0005, 2.0, 15))
    }
}

/// The outcomes of a turn.
const OUTCOMES: [&str; 8] =
    ["stop", "length", "stopped", "interrupted", "content_filter", "failed", "handed_over", "lost"];

/// The outcomes of a reload.
const RELOADS: [&str; 2] = ["taken", "refused"];

impl Metrics {
    /// Registers everything under `chatbox_brain_`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            links: Gauge::default(),
            certificate_expiry: Gauge::default(),
            sessions: Gauge::default(),
            requests: Family::new_with_constructor(Buckets),
            answers_running: Gauge::default(),
            answers: Family::default(),
            answers_adopted: Counter::default(),
            fallbacks: Counter::default(),
            calls: Family::default(),
            tokens: Family::default(),
            quota_refusals: Counter::default(),
            reloads: Family::default(),
        };
        for outcome in RELOADS {
            drop(metrics.reloads.get_or_create(&ReloadLabels { outcome }));
        }
        for outcome in OUTCOMES {
            drop(metrics.answers.get_or_create(&OutcomeLabels { outcome }));
        }
        let registry = registry.sub_registry_with_prefix("chatbox_brain");
        registry.register("connections", "Client connections served", metrics.connections.clone());
        registry.register("links", "Gateways attached", metrics.links.clone());
        registry.register_with_unit(
            "certificate_expiry",
            "Unix time at which the certificate of link.tls expires",
            Unit::Seconds,
            metrics.certificate_expiry.clone(),
        );
        registry.register("sessions", "Sessions held in memory", metrics.sessions.clone());
        registry.register("request_seconds", "Time to answer a client's request", metrics.requests.clone());
        registry.register("answers_running", "Answers being generated", metrics.answers_running.clone());
        registry.register("answers", "Answers ended, by outcome", metrics.answers.clone());
        registry.register(
            "answers_adopted",
            "Answers taken over from a brain that is gone",
            metrics.answers_adopted.clone(),
        );
        registry.register("answers_fell_back", "Times a fallback model began to answer", metrics.fallbacks.clone());
        registry.register(
            "provider_calls",
            "Calls of model providers by finish; error is empty for calls that did not fail",
            metrics.calls.clone(),
        );
        registry.register(
            "tokens",
            "Tokens used, by model and direction (input, cached, output)",
            metrics.tokens.clone(),
        );
        registry.register(
            "quota_refusals",
            "Calls not made because a user's quota was used up",
            metrics.quota_refusals.clone(),
        );
        registry.register("config_reloads", "Reloads of the configuration, by outcome", metrics.reloads.clone());
        metrics
    }

    /// A request was answered.
    pub fn request(&self, kind: &'static str, ok: bool, took: Duration) {
        let labels = RequestLabels { kind, ok: if ok { "true" } else { "false" } };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A gateway attached or left.
    pub fn links(&self, change: i64) {
        self.links.inc_by(change);
    }

    /// A connection was opened or closed.
    pub fn connections(&self, change: i64) {
        self.connections.inc_by(change);
    }

    /// The number of sessions in memory.
    pub fn sessions(&self, count: usize) {
        self.sessions.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// An answer has begun.
    pub fn answer_begun(&self) {
        self.answers_running.inc();
    }

    /// An answer has ended.
    pub fn answer_ended(&self, outcome: &'static str) {
        self.answers_running.dec();
        self.answers.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A fallback model answers in place of the selected one.
    pub fn answer_fell_back(&self) {
        self.fallbacks.inc();
    }

    /// A call of a provider has ended.
    pub fn provider_call(&self, call: &ProviderCall<'_>) {
        let labels = CallLabels { model: call.model.to_owned(), finish: call.finish, error: call.error };
        self.calls.get_or_create(&labels).inc();
        for (direction, tokens) in [("input", call.input), ("cached", call.cached), ("output", call.output)] {
            self.tokens.get_or_create(&TokenLabels { model: call.model.to_owned(), direction }).inc_by(tokens);
        }
    }

    /// A call was not made: the user's quota is used up.
    pub fn quota_refused(&self) {
        self.quota_refusals.inc();
    }

    /// The configuration was reloaded.
    pub fn reloaded(&self, taken: bool) {
        self.reloads.get_or_create(&ReloadLabels { outcome: RELOADS[usize::from(!taken)] }).inc();
    }

    /// An answer was taken over from another brain.
    pub fn answer_adopted(&self) {
        self.answers_adopted.inc();
    }
}
