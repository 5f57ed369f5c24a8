//! One `[[models]]` table: what it means and what is wrong with it by itself.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::{Fault, Faults, Kind, ProviderConfig, SOUND};
use crate::llm::price::Price;
use crate::llm::tokens::TokenCounter;
use crate::llm::{anthropic, openai};

/// One model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// What clients name.
    pub id: String,
    /// What people see; the id where empty.
    pub name: String,
    /// The protocol.
    pub provider: String,
    /// The provider's own address where empty.
    pub base_url: String,
    /// The provider's name of the model.
    pub model: String,
    /// The environment variable with the key.
    pub api_key_env: String,
    /// The file with the key.
    pub api_key_file: String,
    /// Instructions before every conversation.
    pub system_prompt: String,
    /// How much the model can take, in tokens.
    pub context_tokens: Option<u64>,
    /// How much it may answer, in tokens.
    pub max_output_tokens: Option<u64>,
    /// How its tokens are counted; by its name where empty.
    pub tokenizer: String,
    /// The models that answer where this one cannot, in order.
    pub fallback: Vec<String>,
    /// What a million tokens of prompt cost.
    pub input_price: Option<f64>,
    /// What a million tokens of prompt cost that the provider has in its cache; as the others where it is not set.
    pub cached_input_price: Option<f64>,
    /// What a million tokens of answer cost.
    pub output_price: Option<f64>,
    /// Sent only where set.
    pub temperature: Option<f64>,
    /// How the limit of the answer is called.
    pub max_tokens_field: String,
    /// The header with the key.
    pub auth_header: String,
    /// The version of the provider's API.
    pub api_version: String,
    /// In place of the one in `[provider]`.
    pub connect_timeout_ms: Option<u64>,
    /// In place of the one in `[provider]`.
    pub first_token_timeout_ms: Option<u64>,
    /// In place of the one in `[provider]`.
    pub idle_timeout_ms: Option<u64>,
    /// In place of the one in `[provider]`.
    pub total_timeout_ms: Option<u64>,
    /// In place of the one in `[provider]`.
    pub max_retries: Option<u32>,
    /// In place of the one in `[provider]`.
    pub max_retry_after_ms: Option<u64>,
    /// In place of the one in `[provider]`.
    pub max_concurrent: Option<usize>,
    /// In place of the one in `[provider]`.
    pub max_queued: Option<usize>,
    /// In place of the one in `[provider]`.
    pub breaker_failures: Option<u32>,
    /// In place of the one in `[provider]`.
    pub breaker_open_ms: Option<u64>,
}

impl ModelConfig {
    /// Everything that is wrong with this model by itself; keys are relative to it.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Faults(self.calls(&SOUND).validate());
        let is_id = |c: char| c.is_ascii_alphanumeric() || "-_.:/@".contains(c);
        if self.id.is_empty() {
            faults.add("id", "is missing");
        } else if self.id.len() > 64 || !self.id.chars().all(is_id) {
            faults.add("id", "must be at most 64 letters, digits or any of - _ . : / @");
        }
        let (context, output) = (self.context_tokens(), self.max_output_tokens());
        if output == 0 {
            faults.add("max_output_tokens", "must be more than 0");
        }
        if context <= output {
            faults.add("context_tokens", format!("must be more than max_output_tokens ({output})"));
        }
        for (key, price) in [
            ("input_price", self.input_price),
            ("cached_input_price", self.cached_input_price),
            ("output_price", self.output_price),
        ] {
            if price.is_some_and(|price| !(0.0..=1_000_000.0).contains(&price)) {
                faults.add(key, "must be between 0 and 1000000 for a million tokens");
            }
        }
        if self.input_price.is_some() != self.output_price.is_some() {
            faults.add("output_price", "is set only together with input_price, and the other way round");
        }
        if self.cached_input_price.is_some() && self.input_price.is_none() {
            faults.add("cached_input_price", "is set without input_price");
        }
        match Kind::parse(&self.provider) {
            Some(kind) => self.validate_kind(kind, &mut faults),
            None if self.provider.is_empty() => faults.add("provider", "is missing: openai, anthropic, dify or demo"),
            None => faults.add("provider", format!("\"{}\" is none of openai, anthropic, dify, demo", self.provider)),
        }
        faults.0
    }

    fn validate_kind(&self, kind: Kind, faults: &mut Faults) {
        let takes_instructions = matches!(kind, Kind::OpenAi | Kind::Anthropic);
        if takes_instructions && self.model.is_empty() {
            faults.add("model", "is missing: the provider's name of the model");
        }
        for (key, is_set, has_effect) in [
            ("model", !self.model.is_empty(), takes_instructions),
            ("system_prompt", !self.system_prompt.is_empty(), takes_instructions),
            ("temperature", self.temperature.is_some(), takes_instructions),
            ("base_url", !self.base_url.is_empty(), kind != Kind::Demo),
            ("api_key_env", !self.api_key_env.is_empty(), kind != Kind::Demo),
            ("api_key_file", !self.api_key_file.is_empty(), kind != Kind::Demo),
            ("max_tokens_field", !self.max_tokens_field.is_empty(), kind == Kind::OpenAi),
            ("auth_header", !self.auth_header.is_empty(), kind == Kind::OpenAi),
            ("api_version", !self.api_version.is_empty(), takes_instructions),
        ] {
            if is_set && !has_effect {
                faults.add(key, format!("has no effect with provider \"{}\"", self.provider));
            }
        }
        if self.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            faults.add("temperature", "must be between 0 and 2");
        }
        if self.temperature.is_some() && kind == Kind::Anthropic && self.anthropic_version() == anthropic::VERSION {
            faults.add("temperature", format!("is not taken with api_version \"{}\"", anthropic::VERSION));
        }
        if let Err(error) = TokenCounter::check(&self.tokenizer) {
            faults.add("tokenizer", error.to_string());
        }
        if self.max_tokens_field().is_none() {
            faults.add("max_tokens_field", "must be \"max_completion_tokens\" or \"max_tokens\"");
        }
        if self.auth_header().is_none() {
            faults.add("auth_header", "must be \"authorization\" or \"api-key\"");
        }
        if kind != Kind::Demo {
            if let Err(reason) = self.base_url(kind) {
                faults.add("base_url", reason);
            }
            self.validate_key(kind, faults);
        }
    }

    fn validate_key(&self, kind: Kind, faults: &mut Faults) {
        match self.api_key() {
            Err((key, reason)) => faults.add(key, reason),
            Ok(Some(_)) => {}
            // Local servers of these protocols take any key or none; the providers themselves and every Dify need one.
            Ok(None) if kind != Kind::Dify && !self.base_url.is_empty() => {}
            Ok(None) => faults.add("api_key_env", "is missing: this provider needs a key (or set api_key_file)"),
        }
    }

    /// The key, from where it is kept; `None` where no place is named.
    ///
    /// # Errors
    /// The configuration key at fault and the reason. Neither ever holds the key itself.
    pub fn api_key(&self) -> Result<Option<SecretString>, (&'static str, String)> {
        let (place, key) = match (self.api_key_env.as_str(), self.api_key_file.as_str()) {
            ("", "") => return Ok(None),
            (name, "") => {
                let unset = |_| ("api_key_env", format!("names the environment variable {name}, which is not set"));
                ("api_key_env", std::env::var(name).map_err(unset)?)
            }
            ("", path) => {
                let unreadable = |error| ("api_key_file", format!("names {path}, which cannot be read: {error}"));
                ("api_key_file", std::fs::read_to_string(path).map_err(unreadable)?)
            }
            _ => return Err(("api_key_file", "is set together with api_key_env; only one can count".to_owned())),
        };
        let key = SecretString::from(key.trim());
        match key.expose_secret() {
            "" => Err((place, "names an empty key".to_owned())),
            text if !text.chars().all(|c| c.is_ascii_graphic()) => {
                Err((place, "names a key with spaces or characters that cannot be sent".to_owned()))
            }
            _ => Ok(Some(key)),
        }
    }

    /// The name of its endpoint: protocol and address. `None` for a model that is not understood.
    pub fn endpoint_key(&self) -> Option<String> {
        let kind = Kind::parse(&self.provider)?;
        let url = if kind == Kind::Demo { String::new() } else { self.base_url(kind).ok()?.to_string() };
        Some(format!("{} {}", kind.as_str(), url.trim_end_matches('/')))
    }

    /// What its tokens cost; `None` where no price is set.
    pub fn price(&self) -> Option<Price> {
        let input = self.input_price?;
        Some(Price {
            input,
            cached: self.cached_input_price.unwrap_or(input),
            output: self.output_price.unwrap_or_default(),
        })
    }

    /// Where requests go.
    ///
    /// # Errors
    /// The reason why it cannot be used.
    pub fn base_url(&self, kind: Kind) -> Result<Url, String> {
        let text = if self.base_url.is_empty() { kind.default_base_url() } else { &self.base_url };
        let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
        match () {
            () if !matches!(url.scheme(), "http" | "https") => Err("must begin with https:// or http://".to_owned()),
            () if !url.username().is_empty() || url.password().is_some() => {
                Err("must not hold a user or password; use api_key_env".to_owned())
            }
            () if url.query().is_some() || url.fragment().is_some() => {
                Err("must not hold a query; Azure's goes to api_version".to_owned())
            }
            () => Ok(url),
        }
    }

    /// How much the model can take, in tokens.
    pub fn context_tokens(&self) -> u64 {
        self.context_tokens.unwrap_or(128_000)
    }

    /// How much it may answer, in tokens: unless said otherwise 4096, or half of a small model's context.
    pub fn max_output_tokens(&self) -> u64 {
        self.max_output_tokens.unwrap_or_else(|| (self.context_tokens() / 2).min(4096))
    }

    /// The `anthropic-version`: the newer one, unless a temperature asks for the older.
    pub fn anthropic_version(&self) -> &str {
        match (self.api_version.as_str(), self.temperature) {
            ("", None) => anthropic::VERSION,
            ("", Some(_)) => anthropic::VERSION_WITH_SAMPLING,
            (version, _) => version,
        }
    }

    /// `None` for a name that is none.
    pub fn max_tokens_field(&self) -> Option<openai::MaxTokensField> {
        match self.max_tokens_field.as_str() {
            "" | "max_completion_tokens" => Some(openai::MaxTokensField::MaxCompletionTokens),
            "max_tokens" => Some(openai::MaxTokensField::MaxTokens),
            _ => None,
        }
    }

    /// `None` for a name that is none.
    pub fn auth_header(&self) -> Option<openai::AuthHeader> {
        match self.auth_header.as_str() {
            "" | "authorization" => Some(openai::AuthHeader::Bearer),
            "api-key" => Some(openai::AuthHeader::ApiKey),
            _ => None,
        }
    }

    /// How this model is called: its own settings over those of `[provider]`.
    pub fn calls(&self, defaults: &ProviderConfig) -> ProviderConfig {
        ProviderConfig {
            connect_timeout_ms: self.connect_timeout_ms.unwrap_or(defaults.connect_timeout_ms),
            first_token_timeout_ms: self.first_token_timeout_ms.unwrap_or(defaults.first_token_timeout_ms),
            idle_timeout_ms: self.idle_timeout_ms.unwrap_or(defaults.idle_timeout_ms),
            total_timeout_ms: self.total_timeout_ms.unwrap_or(defaults.total_timeout_ms),
            max_retries: self.max_retries.unwrap_or(defaults.max_retries),
            max_retry_after_ms: self.max_retry_after_ms.unwrap_or(defaults.max_retry_after_ms),
            max_concurrent: self.max_concurrent.unwrap_or(defaults.max_concurrent),
            max_queued: self.max_queued.unwrap_or(defaults.max_queued),
            breaker_failures: self.breaker_failures.unwrap_or(defaults.breaker_failures),
            breaker_open_ms: self.breaker_open_ms.unwrap_or(defaults.breaker_open_ms),
        }
    }
}
