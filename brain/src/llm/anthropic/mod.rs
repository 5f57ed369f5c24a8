//! Anthropic Messages in two API versions: `2023-06-01` accepts a temperature on older models, `2026-10-21` rejects
//! every sampling field.

mod stream;
mod wire;

use async_trait::async_trait;
use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::SecretString;
use url::Url;

use self::stream::Decoder;
use self::wire::{ErrorBody, Metadata, Request};
use super::http::{ErrorReply, HttpReply, Transport, class_of_status, key_header, with_request_id};
use super::stream::{Streaming, Whole};
use super::{Generation, Prompt, Provider, ProviderError, Remedy};

/// Where Anthropic's API begins.
pub const BASE_URL: &str = "https://api.anthropic.com";

/// The API version that accepts sampling fields.
pub const VERSION_WITH_SAMPLING: &str = "2023-06-01";

/// The API version without sampling fields.
pub const VERSION: &str = "2026-10-21";

/// The settings of a model with this protocol.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The base URL: requests append `/v1/messages`, or `/messages` where it ends in `/v1`.
    pub base_url: Url,
    /// The provider's name of the model.
    pub model: String,
    /// The API key; local servers need none.
    pub api_key: Option<SecretString>,
    /// The `anthropic-version`.
    pub api_version: String,
    /// The longest answer in tokens; the protocol requires it.
    pub max_output_tokens: u64,
    /// Sent only with [`VERSION_WITH_SAMPLING`].
    pub temperature: Option<f64>,
}

/// A model behind this protocol.
#[derive(Debug)]
pub struct Anthropic {
    transport: Transport,
    url: Url,
    headers: HeaderMap,
    settings: Settings,
}

impl Anthropic {
    /// A model with these settings.
    ///
    /// # Errors
    /// Where a header cannot carry the key or the version.
    pub fn new(transport: Transport, settings: Settings) -> Result<Self, InvalidHeaderValue> {
        let mut url = settings.base_url.clone();
        let has_v1 = url.path().trim_end_matches('/').ends_with("/v1");
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend((!has_v1).then_some("v1")).push("messages");
        }
        let version = HeaderValue::from_str(&settings.api_version)?;
        let mut headers = HeaderMap::from_iter([(HeaderName::from_static("anthropic-version"), version)]);
        if let Some(key) = &settings.api_key {
            headers.insert(HeaderName::from_static("x-api-key"), key_header("", key)?);
        }
        Ok(Self { transport, url, headers, settings })
    }

    fn request<'a>(&'a self, prompt: &'a Prompt) -> Request<'a> {
        let takes_sampling = self.settings.api_version == VERSION_WITH_SAMPLING && !prompt.without_sampling;
        let user = Some(prompt.user.as_str()).filter(|user| !user.is_empty());
        Request {
            model: &self.settings.model,
            max_tokens: self.settings.max_output_tokens,
            stream: true,
            system: prompt.system.as_deref().filter(|system| !system.is_empty()),
            messages: wire::messages(prompt),
            metadata: user.map(|user_id| Metadata { user_id }),
            temperature: self.settings.temperature.filter(|_| takes_sampling),
        }
    }
}

#[async_trait]
impl Provider for Anthropic {
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

fn refused(reply: &ErrorReply, temperature_sent: bool) -> ProviderError {
    let error = serde_json::from_slice::<ErrorBody>(&reply.body).ok().map(|body| body.error);
    let class = error.as_ref().and_then(|error| error.class(reply.retry_after().is_some()));
    let class = class.unwrap_or(class_of_status(reply.status));
    // Newer models reject a temperature in every version.
    let refuses_temperature = temperature_sent && error.as_ref().is_some_and(|error| error.names_temperature());
    let remedy = refuses_temperature.then_some(Remedy::WithoutSampling);
    ProviderError { remedy, ..reply.error(class, error.map(|error| error.said())) }
}
