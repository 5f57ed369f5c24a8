//! Builds a model from its configuration: its provider over a shared HTTP client, its limits, its endpoint.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::clock::Clock;

use super::error::CatalogError;
use crate::llm::anthropic::{self, Anthropic};
use crate::llm::config::{ModelConfig, ProviderConfig, SettingError};
use crate::llm::demo::{self, Demo};
use crate::llm::dify::{self, Dify};
use crate::llm::endpoint::Endpoints;
use crate::llm::http::{self, Transport};
use crate::llm::kind::Kind;
use crate::llm::model::Model;
use crate::llm::openai::{self, OpenAi};
use crate::llm::tokens::TokenCounter;
use crate::llm::{Provider, SharedProvider};

/// Builds the models of one catalog.
pub(super) struct Builder<'a> {
    provider: &'a ProviderConfig,
    clock: &'a Arc<dyn Clock>,
    endpoints: &'a Endpoints,
    /// The HTTP clients by connect timeout and by whether they use TLS. Models share clients and thereby connections.
    clients: HashMap<(u64, bool), reqwest::Client>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(provider: &'a ProviderConfig, clock: &'a Arc<dyn Clock>, endpoints: &'a Endpoints) -> Self {
        Self { provider, clock, endpoints, clients: HashMap::new() }
    }

    /// The model that this configuration describes.
    ///
    /// # Errors
    /// An error of the configuration, or an HTTP client that cannot be made.
    pub(super) fn model(&mut self, config: &ModelConfig) -> Result<Model, CatalogError> {
        let calls = config.calls(self.provider);
        let kind = Kind::parse(&config.provider).unwrap_or(Kind::Demo);
        let key = config.endpoint_key().unwrap_or_default();
        Ok(Model {
            kind,
            provider: self.provider(config, &calls)?,
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

    /// The provider of this model. `config::validate` has accepted the settings before; the functions that check them
    /// there make the values here.
    fn provider(&mut self, config: &ModelConfig, calls: &ProviderConfig) -> Result<SharedProvider, CatalogError> {
        let invalid = |key: &str, reason: String| {
            CatalogError::Config(vec![SettingError::new(format!("{key} of model \"{}\"", config.id), reason)])
        };
        let kind = Kind::parse(&config.provider).ok_or_else(|| invalid("provider", "is unknown".to_owned()))?;
        if kind == Kind::Demo {
            return Ok(Arc::new(Demo::new(Arc::clone(self.clock), demo::PACE)));
        }
        let base_url = config.base_url(kind).map_err(|reason| invalid("base_url", reason))?;
        let api_key = config.api_key().map_err(|error| invalid(&error.key, error.reason.clone()))?;
        let client = self.client(calls.connect_timeout_ms, base_url.scheme() == "https")?;
        let head = Duration::from_millis(calls.first_token_timeout_ms);
        let idle = Duration::from_millis(calls.idle_timeout_ms);
        let transport = Transport::new(client, head, idle, api_key.clone());
        let unsendable = |_| invalid("api_key_env", "names a key that cannot be sent".to_owned());
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
                let api_key = api_key.ok_or_else(|| invalid("api_key_env", "is missing".to_owned()))?;
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
