//! The models clients can select. Built at start and at every reload of the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use chatbox_shared::clock::Clock;

use self::builder::Builder;
use super::config::{ModelConfig, ProviderConfig, SettingError, validate};
use super::endpoint::Endpoints;
use super::model::{DEMO, Model};

mod builder;
mod error;

pub use error::CatalogError;

/// All configured models.
pub struct Catalog {
    models: Vec<Arc<Model>>,
    by_id: HashMap<String, usize>,
    default: Arc<Model>,
}

impl Catalog {
    /// Builds the catalog of these models; without any, the catalog of the built-in model alone.
    ///
    /// # Errors
    /// All errors of the configuration; or a system without trusted certificates, where a model needs TLS.
    pub fn build(
        models: &[ModelConfig],
        provider: &ProviderConfig,
        default_model: &str,
        clock: &Arc<dyn Clock>,
        endpoints: &Endpoints,
    ) -> Result<Self, CatalogError> {
        let errors = validate(models, provider, default_model);
        if !errors.is_empty() {
            return Err(CatalogError::Config(errors));
        }
        let built_in = ModelConfig {
            id: DEMO.to_owned(),
            name: "Demo".to_owned(),
            provider: DEMO.to_owned(),
            ..ModelConfig::default()
        };
        let configured = if models.is_empty() { std::slice::from_ref(&built_in) } else { models };
        let mut builder = Builder::new(provider, clock, endpoints);
        let models = configured.iter().map(|model| builder.model(model).map(Arc::new));
        let models = models.collect::<Result<Vec<_>, _>>()?;
        let by_id: HashMap<_, _> = models.iter().enumerate().map(|(index, model)| (model.id.clone(), index)).collect();
        let default = by_id.get(default_model).and_then(|index| models.get(*index)).or(models.first()).cloned();
        let default =
            default.ok_or_else(|| CatalogError::Config(vec![SettingError::new("models", "the list is empty")]))?;
        Ok(Self { models, by_id, default })
    }

    /// The model with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Model>> {
        self.models.get(*self.by_id.get(id)?)
    }

    /// The model with this id and its fallback models, in the order in which they are tried. Empty for an unknown id.
    pub fn candidates(&self, id: &str) -> Vec<Arc<Model>> {
        let Some(model) = self.get(id) else { return Vec::new() };
        let fallback = model.fallback.iter().filter_map(|id| self.get(id));
        std::iter::once(model).chain(fallback).cloned().collect()
    }

    /// All models in the configured order, which is the order clients see.
    pub fn list(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// The model of sessions that select none.
    pub fn default_model(&self) -> &Arc<Model> {
        &self.default
    }
}

#[cfg(test)]
mod tests {
    use chatbox_shared::clock::SystemClock;
    use serde_json::json;

    use super::*;

    fn build(models: serde_json::Value, default_model: &str) -> Result<Catalog, CatalogError> {
        let models: Vec<ModelConfig> = serde_json::from_value(models).unwrap();
        let provider = serde_json::from_value(json!({
            "connect_timeout_ms": 1000, "first_token_timeout_ms": 1000, "idle_timeout_ms": 1000,
            "total_timeout_ms": 1000, "max_retries": 0, "max_retry_after_ms": 0, "max_concurrent": 10, "max_queued": 10,
            "breaker_failures": 5, "breaker_open_ms": 1000,
        }));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Catalog::build(&models, &provider.unwrap(), default_model, &clock, &Endpoints::default())
    }

    #[test]
    fn without_models_there_is_the_built_in_one() {
        let catalog = build(json!([]), "").unwrap();
        assert_eq!(catalog.list().len(), 1);
        assert_eq!((catalog.default_model().id.as_str(), catalog.default_model().name.as_str()), (DEMO, "Demo"));
        assert!(catalog.get(DEMO).is_some());
    }

    #[test]
    fn models_keep_their_order_and_are_found_by_id() {
        let local =
            |id: &str| json!({"id": id, "provider": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"});
        let catalog =
            build(json!([local("b"), local("a"), {"id": "d", "provider": "demo", "name": "D"}]), "a").unwrap();
        let ids: Vec<_> = catalog.list().iter().map(|model| model.id.as_str()).collect();
        assert_eq!(ids, ["b", "a", "d"]);
        assert_eq!(catalog.default_model().id, "a");
        assert_eq!(catalog.get("d").map(|model| model.name.as_str()), Some("D"));
        assert_eq!(catalog.get("b").map(|model| model.prompt_budget()), Some(128_000 - 4096));
        assert!(catalog.get("nope").is_none());
        assert_eq!(build(json!([local("b")]), "").unwrap().default_model().id, "b");
    }

    #[test]
    fn a_model_comes_with_its_fallbacks_and_models_at_one_address_share_an_endpoint() {
        let at = |id: &str, url: &str, fallback: &[&str]| json!({"id": id, "provider": "openai", "model": "m", "base_url": url, "fallback": fallback});
        let here = "http://127.0.0.1:1/v1";
        let catalog = build(
            json!([
                at("a", here, &["c", "b"]),
                at("b", "http://127.0.0.1:1/v1/", &["c"]),
                at("c", "http://127.0.0.1:2", &[])
            ]),
            "",
        )
        .unwrap();
        let ids: Vec<_> = catalog.candidates("a").iter().map(|model| model.id.clone()).collect();
        assert_eq!(ids, ["a", "c", "b"], "not those of its fallbacks");
        assert!(catalog.candidates("nope").is_empty());
        let endpoint = |id: &str| Arc::clone(&catalog.get(id).unwrap().endpoint);
        assert!(Arc::ptr_eq(&endpoint("a"), &endpoint("b")) && !Arc::ptr_eq(&endpoint("a"), &endpoint("c")));
        assert_eq!(endpoint("a").name, "openai http://127.0.0.1:1/v1");
    }

    #[test]
    fn a_wrong_configuration_is_told_in_full() {
        let error = build(json!([{"id": "x", "provider": "nope"}]), "y").err().unwrap().to_string();
        assert!(error.contains("models[0].provider") && error.contains("answers.default_model"), "{error}");
    }
}
