//! One `[[models]]` table and the values derived from it.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::error::SettingError;
use super::provider::ProviderConfig;
use crate::llm::kind::Kind;
use crate::llm::{anthropic, dify, openai};
use crate::usage::Price;

/// One model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The id clients use.
    pub id: String,
    /// The name people see. Empty: the id.
    pub name: String,
    /// The protocol: a name of [`Kind`].
    pub provider: String,
    /// Where the API begins. Empty: the provider's own address.
    pub base_url: String,
    /// The provider's name of the model.
    pub model: String,
    /// The environment variable with the API key.
    pub api_key_env: String,
    /// The file with the API key.
    pub api_key_file: String,
    /// Instructions before every conversation.
    pub system_prompt: String,
    /// The context window in tokens.
    pub context_tokens: Option<u64>,
    /// The longest answer in tokens.
    pub max_output_tokens: Option<u64>,
    /// The tokenizer. Empty: chosen by the model's name.
    pub tokenizer: String,
    /// The ids of the fallback models, in order.
    pub fallback: Vec<String>,
    /// The price of a million prompt tokens.
    pub input_price: Option<f64>,
    /// The price of a million prompt tokens from the provider's cache; `input_price` where not set.
    pub cached_input_price: Option<f64>,
    /// The price of a million answer tokens.
    pub output_price: Option<f64>,
    /// The sampling temperature; sent only where set.
    pub temperature: Option<f64>,
    /// The name of the request field with the longest answer.
    pub max_tokens_field: String,
    /// The header that carries the API key.
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
    /// Reads the API key from the environment variable or the file; `None` where neither is configured.
    ///
    /// # Errors
    /// The setting and the reason, which never contains the key.
    pub fn api_key(&self) -> Result<Option<SecretString>, SettingError> {
        let (setting, key) = match (self.api_key_env.as_str(), self.api_key_file.as_str()) {
            ("", "") => return Ok(None),
            (name, "") => {
                let reason = format!("names the environment variable {name}, which is not set");
                ("api_key_env", std::env::var(name).map_err(|_| SettingError::new("api_key_env", reason))?)
            }
            ("", path) => {
                let reason = |error| format!("names {path}, which cannot be read: {error}");
                let key = std::fs::read_to_string(path);
                ("api_key_file", key.map_err(|error| SettingError::new("api_key_file", reason(error)))?)
            }
            _ => {
                return Err(SettingError::new(
                    "api_key_file",
                    "is set together with api_key_env; set only one of them",
                ));
            }
        };
        let key = SecretString::from(key.trim());
        match key.expose_secret() {
            "" => Err(SettingError::new(setting, "names an empty key")),
            text if !text.chars().all(|c| c.is_ascii_graphic()) => {
                let reason = "names a key with spaces or with characters that an HTTP header cannot carry";
                Err(SettingError::new(setting, reason))
            }
            _ => Ok(Some(key)),
        }
    }

    /// The name of the model's endpoint: protocol and address. `None` where either is invalid.
    pub fn endpoint_key(&self) -> Option<String> {
        let kind = Kind::parse(&self.provider)?;
        let url = if kind == Kind::Demo { String::new() } else { self.base_url(kind).ok()?.to_string() };
        Some(format!("{} {}", kind.as_str(), url.trim_end_matches('/')))
    }

    /// The price of its tokens; `None` where none is set.
    pub fn price(&self) -> Option<Price> {
        let input = self.input_price?;
        Some(Price {
            input,
            cached: self.cached_input_price.unwrap_or(input),
            output: self.output_price.unwrap_or_default(),
        })
    }

    /// The base URL.
    ///
    /// # Errors
    /// The reason why it is invalid.
    pub fn base_url(&self, kind: Kind) -> Result<Url, String> {
        let text = if self.base_url.is_empty() { default_base_url(kind) } else { &self.base_url };
        let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        match () {
            () if !matches!(url.scheme(), "http" | "https") => Err("must begin with https:// or http://".to_owned()),
            () if !url.username().is_empty() || url.password().is_some() => {
                Err("must not contain a user or password; use api_key_env".to_owned())
            }
            () if url.query().is_some() || url.fragment().is_some() => {
                Err("must not contain a query; for Azure set api_version".to_owned())
            }
            () => match full_path(kind).filter(|path| url.path().trim_end_matches('/').ends_with(path)) {
                Some(path) => Err(format!("must end before \"{path}\", which chatbox appends")),
                None => Ok(url),
            },
        }
    }

    /// How much the model can take, in tokens.
    pub fn context_tokens(&self) -> u64 {
        self.context_tokens.unwrap_or(128_000)
    }

    /// The longest answer in tokens: by default 4096, or half of a smaller context window.
    pub fn max_output_tokens(&self) -> u64 {
        self.max_output_tokens.unwrap_or_else(|| (self.context_tokens() / 2).min(4096))
    }

    /// The `anthropic-version`: by default the newest, or the one with sampling fields where a temperature is set.
    pub fn anthropic_version(&self) -> &str {
        match (self.api_version.as_str(), self.temperature) {
            ("", None) => anthropic::VERSION,
            ("", Some(_)) => anthropic::VERSION_WITH_SAMPLING,
            (version, _) => version,
        }
    }

    /// `None` where the configured name is unknown.
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

    /// The limits of this model's calls: its overrides on top of `[provider]`.
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

/// The path that requests append to the base URL.
fn full_path(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::OpenAi => Some("/chat/completions"),
        Kind::Anthropic => Some("/messages"),
        Kind::Dify => Some("/chat-messages"),
        Kind::Demo => None,
    }
}

fn default_base_url(kind: Kind) -> &'static str {
    match kind {
        Kind::OpenAi => openai::BASE_URL,
        Kind::Anthropic => anthropic::BASE_URL,
        Kind::Dify => dify::BASE_URL,
        Kind::Demo => "",
    }
}
