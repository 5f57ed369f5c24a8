//! The sections `[provider]` and `[[models]]` of the configuration. Their defaults and explanations stand in
//! `default.toml`; here is what they mean and what is wrong with them.
//!
//! An empty text means the same as none: that is how the defaults file can show a key without setting it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Deserialize;

use super::endpoint::{BreakerSettings, EndpointSettings, QueueSettings};
use super::retry::{Jitter, Policy};
use super::{anthropic, dify, openai};

mod model;

pub use model::ModelConfig;

/// A key of the configuration and what is wrong with it.
pub type Fault = (String, String);

/// How providers are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// For making a connection.
    pub connect_timeout_ms: u64,
    /// From a request to the first text.
    pub first_token_timeout_ms: u64,
    /// Between two bytes of a stream.
    pub idle_timeout_ms: u64,
    /// For one answer as a whole.
    pub total_timeout_ms: u64,
    /// Further tries before the first text.
    pub max_retries: u32,
    /// The longest wait a provider may ask for.
    pub max_retry_after_ms: u64,
    /// Calls of one endpoint at once.
    pub max_concurrent: usize,
    /// Calls that may wait for a place at one endpoint.
    pub max_queued: usize,
    /// Failures in a row after which an endpoint is left alone.
    pub breaker_failures: u32,
    /// For how long.
    pub breaker_open_ms: u64,
}

/// The protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// OpenAI Chat Completions and what speaks it.
    OpenAi,
    /// Anthropic Messages.
    Anthropic,
    /// Dify chat apps.
    Dify,
    /// The built-in model.
    Demo,
}

impl Kind {
    /// The kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "openai" => Some(Self::OpenAi),
            "anthropic" => Some(Self::Anthropic),
            "dify" => Some(Self::Dify),
            "demo" => Some(Self::Demo),
            _ => None,
        }
    }

    /// The name in the configuration and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Dify => "dify",
            Self::Demo => "demo",
        }
    }

    fn default_base_url(self) -> &'static str {
        match self {
            Self::OpenAi => openai::BASE_URL,
            Self::Anthropic => anthropic::BASE_URL,
            Self::Dify => dify::BASE_URL,
            Self::Demo => "",
        }
    }
}

/// Settings nobody can object to: what is found wrong in a model's own settings over these is the model's own fault.
const SOUND: ProviderConfig = ProviderConfig {
    connect_timeout_ms: 1,
    first_token_timeout_ms: 1,
    idle_timeout_ms: 1,
    total_timeout_ms: 1,
    max_retries: 0,
    max_retry_after_ms: 0,
    max_concurrent: 1,
    max_queued: 0,
    breaker_failures: 1,
    breaker_open_ms: 1,
};

impl ProviderConfig {
    /// Everything that is wrong with it; keys are relative to its section.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        for (key, millis) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("first_token_timeout_ms", self.first_token_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("total_timeout_ms", self.total_timeout_ms),
            ("breaker_open_ms", self.breaker_open_ms),
        ] {
            if !(1..=86_400_000).contains(&millis) {
                faults.add(key, "must be between 1 (a millisecond) and 86400000 (a day)");
            }
        }
        if self.max_retries > 10 {
            faults.add("max_retries", "must be 10 or less");
        }
        if self.max_retry_after_ms > 86_400_000 {
            faults.add("max_retry_after_ms", "must be 86400000 (a day) or less");
        }
        if !(1..=1_000_000).contains(&self.max_concurrent) {
            faults.add("max_concurrent", "must be between 1 and 1000000");
        }
        if self.max_queued > 1_000_000 {
            faults.add("max_queued", "must be 1000000 or less");
        }
        if self.breaker_failures == 0 {
            faults.add("breaker_failures", "must be at least 1");
        }
        faults.0
    }

    /// The limits of an endpoint these settings mean.
    pub fn endpoint(&self) -> EndpointSettings {
        EndpointSettings {
            breaker: BreakerSettings {
                failures: self.breaker_failures,
                open_for: Duration::from_millis(self.breaker_open_ms),
            },
            queue: QueueSettings { max_concurrent: self.max_concurrent, max_queued: self.max_queued },
        }
    }

    /// The limits and tries these settings mean.
    pub fn policy(&self) -> Policy {
        Policy {
            first_token: Duration::from_millis(self.first_token_timeout_ms),
            total: Duration::from_millis(self.total_timeout_ms),
            max_retries: self.max_retries,
            max_retry_after: Duration::from_millis(self.max_retry_after_ms),
            jitter: Jitter::random(),
        }
    }
}

/// Everything that is wrong with the models and with how they are called, with whole keys. `default_model` may be empty.
pub fn validate(models: &[ModelConfig], provider: &ProviderConfig, default_model: &str) -> Vec<Fault> {
    let within = |section: String, faults: Vec<Fault>| {
        faults.into_iter().map(move |(key, reason)| (format!("{section}.{key}"), reason))
    };
    let mut faults: Vec<Fault> = within("provider".to_owned(), provider.validate()).collect();
    let mut ids = HashSet::new();
    for (index, model) in models.iter().enumerate() {
        faults.extend(within(format!("models[{index}]"), model.validate()));
        if !ids.insert(model.id.as_str()) && !model.id.is_empty() {
            faults.push((format!("models[{index}].id"), format!("another model is called \"{}\" already", model.id)));
        }
    }
    validate_fallbacks(models, &ids, &mut faults);
    validate_endpoints(models, provider, &mut faults);
    let known = if models.is_empty() { default_model == super::catalog::DEMO } else { ids.contains(default_model) };
    if !default_model.is_empty() && !known {
        faults.push(("answers.default_model".to_owned(), format!("there is no model \"{default_model}\"")));
    }
    faults
}

fn validate_fallbacks(models: &[ModelConfig], ids: &HashSet<&str>, faults: &mut Vec<Fault>) {
    for (index, model) in models.iter().enumerate() {
        let mut named = HashSet::new();
        for fallback in &model.fallback {
            let reason = match () {
                () if *fallback == model.id => format!("names \"{fallback}\", the model itself"),
                () if !ids.contains(fallback.as_str()) => format!("names \"{fallback}\", and there is no such model"),
                () if !named.insert(fallback) => format!("names \"{fallback}\" twice"),
                () => continue,
            };
            faults.push((format!("models[{index}].fallback"), reason));
        }
    }
}

/// Models at one endpoint share its limits, so they cannot each have others.
fn validate_endpoints(models: &[ModelConfig], provider: &ProviderConfig, faults: &mut Vec<Fault>) {
    let mut limits: HashMap<String, (&str, EndpointSettings)> = HashMap::new();
    for (index, model) in models.iter().enumerate() {
        let Some(key) = model.endpoint_key() else { continue };
        let settings = model.calls(provider).endpoint();
        let (first, known) = *limits.entry(key).or_insert((&model.id, settings));
        if known != settings {
            let reason = format!(
                "sets max_concurrent, max_queued or breaker_* otherwise than model \"{first}\", which has the same endpoint"
            );
            faults.push((format!("models[{index}]"), reason));
        }
    }
}

/// Faults as they are found.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, key: &str, reason: impl Into<String>) {
        self.0.push((key.to_owned(), reason.into()));
    }
}

#[cfg(test)]
mod tests;
