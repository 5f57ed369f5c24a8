//! The sections `[provider]` and `[[models]]` of the configuration. Their defaults and explanations stand in
//! `default.toml`; here is what they mean and what is wrong with them.
//!
//! An empty text means the same as none: that is how the defaults file can show a key without setting it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::endpoint::{BreakerSettings, EndpointSettings, QueueSettings};
use super::price::Price;
use super::retry::{Jitter, Policy};
use super::tokens::TokenCounter;
use super::{anthropic, dify, openai};

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CALLS: ProviderConfig = ProviderConfig { max_retries: 2, ..SOUND };

    fn models(json: serde_json::Value) -> Vec<ModelConfig> {
        serde_json::from_value(json).unwrap()
    }

    fn faults(json: serde_json::Value) -> Vec<String> {
        validate(&models(json), &CALLS, "").into_iter().map(|(key, _)| key).collect()
    }

    /// A variable every build has; its value serves as a key that is no secret.
    const KEY_ENV: &str = "CARGO_PKG_NAME";

    #[test]
    fn sound_models_have_no_faults() {
        let sound = json!([
            {"id": "gpt", "name": "GPT", "provider": "openai", "model": "gpt-x", "api_key_env": KEY_ENV, "api_key_file": ""},
            {"id": "azure", "provider": "openai", "model": "d", "base_url": "https://example.com/openai/deployments/d",
             "api_key_env": KEY_ENV, "auth_header": "api-key", "api_version": "2024-10-21", "temperature": 0.7},
            {"id": "llama3.1:8b", "provider": "openai", "model": "llama3.1:8b", "base_url": "http://127.0.0.1:11434/v1",
             "max_tokens_field": "max_tokens", "context_tokens": 4096, "max_retries": 0},
            {"id": "claude", "provider": "anthropic", "model": "c", "api_key_env": KEY_ENV, "temperature": 0.5},
            {"id": "app", "provider": "dify", "api_key_env": KEY_ENV},
            {"id": "demo", "provider": "demo"},
        ]);
        assert_eq!(validate(&models(sound), &CALLS, "claude"), []);
        assert_eq!(validate(&[], &CALLS, "demo"), []);
    }

    #[test]
    fn all_faults_are_listed_at_once() {
        let broken = json!([
            {"provider": "openai"},
            {"id": "a b", "provider": "opnai"},
            {"id": "x", "provider": "dify", "base_url": "ftp://example.com", "model": "m", "system_prompt": "s"},
            {"id": "x", "provider": "demo", "context_tokens": 10, "max_output_tokens": 10, "max_retries": 99},
            {"id": "y", "provider": "anthropic", "model": "m", "temperature": 3, "api_version": "2026-10-21",
             "api_key_env": "NO_SUCH_VARIABLE", "auth_header": "x"},
            {"id": "z", "provider": "openai", "model": "m", "base_url": "https://me:secret@example.com",
             "api_key_env": KEY_ENV, "api_key_file": "key", "max_tokens_field": "tokens", "idle_timeout_ms": 0},
        ]);
        let expected = [
            "models[0].id",
            "models[0].model",
            "models[0].api_key_env",
            "models[1].id",
            "models[1].provider",
            "models[2].model",
            "models[2].system_prompt",
            "models[2].base_url",
            "models[2].api_key_env",
            "models[3].max_retries",
            "models[3].context_tokens",
            "models[3].id",
            "models[4].auth_header",
            "models[4].temperature",
            "models[4].temperature",
            "models[4].auth_header",
            "models[4].api_key_env",
            "models[5].idle_timeout_ms",
            "models[5].max_tokens_field",
            "models[5].base_url",
            "models[5].api_key_file",
        ];
        assert_eq!(faults(broken), expected);
        let provider = ProviderConfig { total_timeout_ms: 0, ..CALLS };
        let keys: Vec<_> = validate(&[], &provider, "gpt").into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["provider.total_timeout_ms", "answers.default_model"]);
    }

    #[test]
    fn fallbacks_prices_and_shared_endpoints_are_checked() {
        let at = |id: &str, more: serde_json::Value| {
            let mut model = json!({"id": id, "provider": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"});
            model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            model
        };
        let sound = json!([at("a", json!({"fallback": ["b", "c"], "input_price": 2.5, "output_price": 10})),
            at("b", json!({"fallback": ["a"], "max_retries": 0})), {"id": "c", "provider": "demo", "max_concurrent": 3}]);
        assert_eq!(validate(&models(sound), &CALLS, ""), []);
        let broken = json!([
            at("a", json!({"fallback": ["a", "x", "b", "b"]})),
            at("b", json!({"max_concurrent": 7, "input_price": 1, "cached_input_price": -1})),
            at("c", json!({"cached_input_price": 1, "breaker_failures": 0, "max_concurrent": 0})),
        ]);
        let expected = [
            "models[1].cached_input_price",
            "models[1].output_price",
            "models[2].max_concurrent",
            "models[2].breaker_failures",
            "models[2].cached_input_price",
            "models[0].fallback",
            "models[0].fallback",
            "models[0].fallback",
            "models[1]",
            "models[2]",
        ];
        assert_eq!(faults(broken), expected);
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(serde_json::from_value::<ModelConfig>(json!({"id": "x", "api_key": "secret"})).is_err());
        assert!(serde_json::from_value::<ProviderConfig>(json!({"retries": 1})).is_err());
    }

    #[test]
    fn a_key_comes_from_its_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let model = ModelConfig { api_key_file: path.display().to_string(), ..ModelConfig::default() };
        std::fs::write(&path, "canary-key\n").unwrap();
        let key = model.api_key().unwrap().unwrap();
        assert_eq!(key.expose_secret(), "canary-key");
        assert!(!format!("{key:?}").contains("canary"));
        for wrong in ["", " \n", "canary key", "canary-schlüssel"] {
            std::fs::write(&path, wrong).unwrap();
            let (place, reason) = model.api_key().unwrap_err();
            assert!(place == "api_key_file" && !reason.contains("canary"), "{reason}");
        }
    }

    #[test]
    fn a_model_s_own_settings_win() {
        let model = &models(json!([{"max_retries": 0, "idle_timeout_ms": 7}]))[0];
        assert_eq!(model.calls(&CALLS), ProviderConfig { max_retries: 0, idle_timeout_ms: 7, ..CALLS });
        assert_eq!((model.context_tokens(), model.max_output_tokens()), (128_000, 4096));
    }
}
