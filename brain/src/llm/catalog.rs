//! The models clients can choose from, each with its provider behind it, ready to be called. Built at start and at every
//! reload of the configuration.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::clock::Clock;

use super::anthropic::{self, Anthropic};
use super::config::{Fault, Kind, ModelConfig, ProviderConfig, validate};
use super::demo::{self, Demo};
use super::dify::{self, Dify};
use super::endpoint::{Endpoint, Endpoints};
use super::http::{self, Transport};
use super::openai::{self, OpenAi};
use super::price::Price;
use super::retry::Policy;
use super::tokens::TokenCounter;
use super::{Provider, SharedProvider, TokenUsage};

/// The id of the built-in model where no other is configured.
pub const DEMO: &str = "demo";

/// A model.
#[derive(Clone)]
pub struct Model {
    /// What clients name.
    pub id: String,
    /// What people see.
    pub name: String,
    /// The protocol of its provider, as the ledger names it.
    pub kind: Kind,
    /// Answers prompts; one call at a time, without any limit of ours.
    pub provider: SharedProvider,
    /// The limits of its calls, and when they are made again.
    pub policy: Policy,
    /// Where it is called, shared with other models at the same address.
    pub endpoint: Arc<Endpoint>,
    /// The models that answer where it cannot, in order.
    pub fallback: Vec<String>,
    /// What its tokens cost.
    pub price: Option<Price>,
    /// Counts its tokens.
    pub counter: TokenCounter,
    /// How much it can take, in tokens, prompt and answer together.
    pub context_tokens: u64,
    /// How much it may answer, in tokens.
    pub max_output_tokens: u64,
    /// Instructions before every conversation.
    pub system_prompt: Option<String>,
}

impl Model {
    /// What a prompt may cost: [`TokenCounter::fit`] takes it.
    pub fn prompt_budget(&self) -> u64 {
        self.context_tokens.saturating_sub(self.max_output_tokens)
    }

    /// What this costs, in billionths; `None` where it has no price.
    pub fn cost(&self, usage: &TokenUsage) -> Option<u64> {
        self.price.map(|price| price.cost(usage))
    }
}

/// All models.
pub struct Catalog {
    models: Vec<Arc<Model>>,
    by_id: HashMap<String, usize>,
    default: Arc<Model>,
}

/// Why there is no catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The configuration is wrong.
    #[error("{}", .0.iter().map(|(key, reason)| format!("{key} {reason}")).collect::<Vec<_>>().join("; "))]
    Config(Vec<Fault>),
    /// No HTTP client can be made, such as without any certificate authority to trust.
    #[error("no HTTP client for the models' providers")]
    Client(#[from] reqwest::Error),
}

impl Catalog {
    /// The catalog of these models. With none, the built-in one alone.
    ///
    /// # Errors
    /// Every fault of the configuration, or a system that has no certificates although some model needs them.
    pub fn build(
        models: &[ModelConfig],
        provider: &ProviderConfig,
        default_model: &str,
        clock: &Arc<dyn Clock>,
        endpoints: &Endpoints,
    ) -> Result<Self, CatalogError> {
        let faults = validate(models, provider, default_model);
        if !faults.is_empty() {
            return Err(CatalogError::Config(faults));
        }
        let built_in = ModelConfig {
            id: DEMO.to_owned(),
            name: "Demo".to_owned(),
            provider: DEMO.to_owned(),
            ..ModelConfig::default()
        };
        let configured = if models.is_empty() { std::slice::from_ref(&built_in) } else { models };
        let mut builder = Builder { provider, clock, endpoints, clients: HashMap::new() };
        let models = configured.iter().map(|model| builder.model(model).map(Arc::new));
        let models = models.collect::<Result<Vec<_>, _>>()?;
        let by_id: HashMap<_, _> = models.iter().enumerate().map(|(index, model)| (model.id.clone(), index)).collect();
        let default = by_id.get(default_model).and_then(|index| models.get(*index)).or(models.first()).cloned();
        let default =
            default.ok_or_else(|| CatalogError::Config(vec![("models".to_owned(), "is empty".to_owned())]))?;
        Ok(Self { models, by_id, default })
    }

    /// The model with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Model>> {
        self.models.get(*self.by_id.get(id)?)
    }

    /// The model with this id and those it falls back to, in the order in which they are asked; none if there is no such
    /// model.
    pub fn candidates(&self, id: &str) -> Vec<Arc<Model>> {
        let Some(model) = self.get(id) else { return Vec::new() };
        let fallback = model.fallback.iter().filter_map(|id| self.get(id));
        std::iter::once(model).chain(fallback).cloned().collect()
    }

    /// All models, in the order clients see them.
    pub fn list(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// The model of sessions that name none.
    pub fn default_model(&self) -> &Arc<Model> {
        &self.default
    }
}

struct Builder<'a> {
    provider: &'a ProviderConfig,
    clock: &'a Arc<dyn Clock>,
    endpoints: &'a Endpoints,
    /// By what they differ in: the time to connect, and whether they know certificates. Models share connections.
    clients: HashMap<(u64, bool), reqwest::Client>,
}

impl Builder<'_> {
    fn model(&mut self, config: &ModelConfig) -> Result<Model, CatalogError> {
        let calls = config.calls(self.provider);
        let kind = Kind::parse(&config.provider).unwrap_or(Kind::Demo);
        let key = config.endpoint_key().unwrap_or_default();
        Ok(Model {
            kind,
            provider: self.bare(config, &calls)?,
            policy: calls.policy(),
            endpoint: self.endpoints.get(&key, &calls.endpoint()),
            fallback: config.fallback.clone(),
            price: config.price(),
            id: config.id.clone(),
            name: if config.name.is_empty() { config.id.clone() } else { config.name.clone() },
            counter: TokenCounter::for_model(kind, &config.model, &config.tokenizer).unwrap_or_default(),
            context_tokens: config.context_tokens(),
            max_output_tokens: config.max_output_tokens(),
            system_prompt: Some(config.system_prompt.clone()).filter(|text| !text.is_empty()),
        })
    }

    /// The provider without anything around it. What is checked here again was found right by `validate`; it is the same
    /// check that makes the value.
    fn bare(&mut self, config: &ModelConfig, calls: &ProviderConfig) -> Result<SharedProvider, CatalogError> {
        let fault =
            |key: &str, reason: String| CatalogError::Config(vec![(format!("models.{}.{key}", config.id), reason)]);
        let kind = Kind::parse(&config.provider).ok_or_else(|| fault("provider", "is unknown".to_owned()))?;
        if kind == Kind::Demo {
            return Ok(Arc::new(Demo::new(Arc::clone(self.clock), demo::PACE)));
        }
        let base_url = config.base_url(kind).map_err(|reason| fault("base_url", reason))?;
        let api_key = config.api_key().map_err(|(key, reason)| fault(key, reason))?;
        let client = self.client(calls.connect_timeout_ms, base_url.scheme() == "https")?;
        let head = Duration::from_millis(calls.first_token_timeout_ms);
        let idle = Duration::from_millis(calls.idle_timeout_ms);
        let transport = Transport::new(client, head, idle, api_key.clone());
        let unsendable = |_| fault("api_key_env", "names a key that cannot be sent".to_owned());
        let max_output_tokens = config.max_output_tokens();
        let provider: Arc<dyn Provider> = match kind {
            Kind::OpenAi => Arc::new(
                OpenAi::new(
                    transport,
                    openai::Settings {
                        base_url,
                        model: config.model.clone(),
                        api_key,
                        auth: config.auth_header().unwrap_or(openai::AuthHeader::Bearer),
                        api_version: Some(config.api_version.clone()).filter(|version| !version.is_empty()),
                        max_tokens_field: config
                            .max_tokens_field()
                            .unwrap_or(openai::MaxTokensField::MaxCompletionTokens),
                        max_output_tokens,
                        temperature: config.temperature,
                    },
                )
                .map_err(unsendable)?,
            ),
            Kind::Anthropic => Arc::new(
                Anthropic::new(
                    transport,
                    anthropic::Settings {
                        base_url,
                        model: config.model.clone(),
                        api_key,
                        api_version: config.anthropic_version().to_owned(),
                        max_output_tokens,
                        temperature: config.temperature,
                    },
                )
                .map_err(unsendable)?,
            ),
            Kind::Dify | Kind::Demo => {
                let api_key = api_key.ok_or_else(|| fault("api_key_env", "is missing".to_owned()))?;
                Arc::new(Dify::new(transport, &dify::Settings { base_url, api_key }).map_err(unsendable)?)
            }
        };
        Ok(provider)
    }

    fn client(&mut self, connect_timeout_ms: u64, tls: bool) -> Result<reqwest::Client, reqwest::Error> {
        if let Some(client) = self.clients.get(&(connect_timeout_ms, tls)) {
            return Ok(client.clone());
        }
        let client = http::client(Duration::from_millis(connect_timeout_ms), tls)?;
        self.clients.insert((connect_timeout_ms, tls), client.clone());
        Ok(client)
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
