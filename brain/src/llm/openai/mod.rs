//! OpenAI Chat Completions, also of compatible servers: Azure, Ollama, vLLM, gateways. Their differences are in
//! [`Settings`], never in the code.

mod stream;
mod wire;

use async_trait::async_trait;
use http::header::{AUTHORIZATION, InvalidHeaderValue};
use http::{HeaderMap, HeaderName};
use secrecy::SecretString;
use url::Url;

use self::stream::Decoder;
use self::wire::{OpenAiError, Request, StreamOptions};
use super::http::{ErrorReply, HttpReply, Transport, class_of_status, key_header, with_request_id};
use super::stream::{Streaming, Whole};
use super::{Generation, Prompt, Provider, ProviderError, Remedy};

/// Where OpenAI's API begins.
pub const BASE_URL: &str = "https://api.openai.com/v1";

/// The settings of a model with this protocol.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The base URL: requests append `/chat/completions`.
    pub base_url: Url,
    /// The provider's name of the model.
    pub model: String,
    /// The API key; local servers need none.
    pub api_key: Option<SecretString>,
    /// The header that carries the key.
    pub auth: AuthHeader,
    /// Azure's `api-version` parameter.
    pub api_version: Option<String>,
    /// The name of the field with the longest answer.
    pub max_tokens_field: MaxTokensField,
    /// The longest answer in tokens.
    pub max_output_tokens: u64,
    /// Sent only where set: reasoning models accept none.
    pub temperature: Option<f64>,
}

/// The header that carries the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthHeader {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `api-key: KEY` (Azure).
    ApiKey,
}

/// The request field with the longest answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTokensField {
    /// Required by OpenAI's newer models.
    MaxCompletionTokens,
    /// The only one many compatible servers know.
    MaxTokens,
}

/// A model behind this protocol.
#[derive(Debug)]
pub struct OpenAi {
    transport: Transport,
    url: Url,
    headers: HeaderMap,
    settings: Settings,
}

impl OpenAi {
    /// A model with these settings.
    ///
    /// # Errors
    /// Where a header cannot carry the key.
    pub fn new(transport: Transport, settings: Settings) -> Result<Self, InvalidHeaderValue> {
        let mut url = settings.base_url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["chat", "completions"]);
        }
        if let Some(version) = &settings.api_version {
            url.query_pairs_mut().append_pair("api-version", version);
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = &settings.api_key {
            match settings.auth {
                AuthHeader::Bearer => headers.insert(AUTHORIZATION, key_header("Bearer ", key)?),
                AuthHeader::ApiKey => headers.insert(HeaderName::from_static("api-key"), key_header("", key)?),
            };
        }
        Ok(Self { transport, url, headers, settings })
    }

    fn request<'a>(&'a self, prompt: &'a Prompt) -> Request<'a> {
        let Settings { model, max_tokens_field, max_output_tokens, temperature, .. } = &self.settings;
        let limit_in = |field| (*max_tokens_field == field).then_some(*max_output_tokens);
        // OpenAI replaces `user` by `safety_identifier`; other servers may reject an unknown field.
        let is_openai = self.url.host_str() == Some("api.openai.com");
        let user = Some(prompt.user.as_str()).filter(|user| !user.is_empty());
        Request {
            model,
            stream: true,
            stream_options: StreamOptions { include_usage: true },
            messages: wire::messages(prompt),
            max_completion_tokens: limit_in(MaxTokensField::MaxCompletionTokens),
            max_tokens: limit_in(MaxTokensField::MaxTokens),
            temperature: temperature.filter(|_| !prompt.without_sampling),
            safety_identifier: user.filter(|_| is_openai),
            user: user.filter(|_| !is_openai),
        }
    }
}

#[async_trait]
impl Provider for OpenAi {
    async fn generate(&self, prompt: &Prompt) -> Result<Box<dyn Generation>, ProviderError> {
        let headers = with_request_id(&self.headers, &prompt.request_id);
        let request = self.request(prompt);
        match self.transport.post(&self.url, headers, &request).await? {
            HttpReply::Stream(body) => Ok(Box::new(Streaming::new(body, Decoder::default()))),
            HttpReply::Whole(body) => Whole::read(&self.transport, |out| Decoder::whole(&body, out)),
            HttpReply::Error(reply) => Err(refused(&reply, request.temperature.is_some())),
        }
    }
}

fn refused(reply: &ErrorReply, sampling_sent: bool) -> ProviderError {
    let error = serde_json::from_slice(&reply.body).ok().and_then(|body| OpenAiError::find(&body));
    let class = error.as_ref().and_then(OpenAiError::class).unwrap_or(class_of_status(reply.status));
    let refuses_sampling = sampling_sent && error.as_ref().is_some_and(OpenAiError::names_sampling);
    let remedy = refuses_sampling.then_some(Remedy::WithoutSampling);
    ProviderError { remedy, ..reply.error(class, error.map(|error| error.said())) }
}
