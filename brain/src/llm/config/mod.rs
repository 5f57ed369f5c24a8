//! The sections `[provider]` and `[[models]]` of the configuration: typed, and validated together. `default.toml` holds
//! their defaults and documentation. An empty text means "not set".

use std::collections::{HashMap, HashSet};

use super::endpoint::EndpointSettings;
use super::model::DEMO;

mod check;
mod error;
mod model;
mod provider;

pub use error::SettingError;
pub use model::ModelConfig;
pub use provider::ProviderConfig;

/// All errors of the models and of `[provider]`, with full keys. `default_model` may be empty.
pub fn validate(models: &[ModelConfig], provider: &ProviderConfig, default_model: &str) -> Vec<SettingError> {
    let mut errors: Vec<_> = provider.validate().into_iter().map(|error| error.within("provider")).collect();
    let mut ids = HashSet::new();
    for (index, model) in models.iter().enumerate() {
        let section = format!("models[{index}]");
        errors.extend(model.validate().into_iter().map(|error| error.within(&section)));
        if !ids.insert(model.id.as_str()) && !model.id.is_empty() {
            let reason = format!("\"{}\" is used by another model already", model.id);
            errors.push(SettingError::new(format!("{section}.id"), reason));
        }
    }
    validate_fallbacks(models, &ids, &mut errors);
    validate_endpoints(models, provider, &mut errors);
    let known = if models.is_empty() { default_model == DEMO } else { ids.contains(default_model) };
    if !default_model.is_empty() && !known {
        errors.push(SettingError::new("answers.default_model", format!("there is no model \"{default_model}\"")));
    }
    errors
}

fn validate_fallbacks(models: &[ModelConfig], ids: &HashSet<&str>, errors: &mut Vec<SettingError>) {
    for (index, model) in models.iter().enumerate() {
        let mut named = HashSet::new();
        for fallback in &model.fallback {
            let reason = match () {
                () if *fallback == model.id => format!("names the model itself, \"{fallback}\""),
                () if !ids.contains(fallback.as_str()) => format!("names \"{fallback}\", but there is no such model"),
                () if !named.insert(fallback) => format!("names \"{fallback}\" twice"),
                () => continue,
            };
            errors.push(SettingError::new(format!("models[{index}].fallback"), reason));
        }
    }
}

/// Models at one endpoint share its limits, so they must not set different ones.
fn validate_endpoints(models: &[ModelConfig], provider: &ProviderConfig, errors: &mut Vec<SettingError>) {
    let mut limits: HashMap<String, (&str, EndpointSettings)> = HashMap::new();
    for (index, model) in models.iter().enumerate() {
        let Some(key) = model.endpoint_key() else { continue };
        let settings = model.calls(provider).endpoint();
        let (first, known) = *limits.entry(key).or_insert((&model.id, settings));
        if known != settings {
            let reason = format!(
                "sets other max_concurrent, max_queued or breaker_* values than model \"{first}\" at the same endpoint"
            );
            errors.push(SettingError::new(format!("models[{index}]"), reason));
        }
    }
}

#[cfg(test)]
mod tests;
