//! Dify's chat apps. They keep the history under a conversation id of their own, and go on generating when the connection
//! closes: stopping takes a call.

mod stream;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::{AUTHORIZATION, InvalidHeaderValue};
use secrecy::SecretString;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use self::stream::Decoder;
use self::wire::{Fault, Inputs, Request, Stop};
use super::http::{Reply, Transport, class_of_status, key_header};
use super::stream::{Streaming, Whole};
use super::{Chunk, Generation, Prompt, Provider, ProviderError};

/// Dify's own cloud.
pub const BASE_URL: &str = "https://api.dify.ai/v1";

/// How long a cancelled stream is read for its first event, which holds the id to stop it by.
const FIRST_EVENT: Duration = Duration::from_millis(300);

/// How long a stop call may take before the connection is closed without it. Both waits together stay under a second.
const STOP_CALL: Duration = Duration::from_millis(600);

/// What is to be known. Model, instructions and limits are parts of the app at Dify.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Everything before `/chat-messages`.
    pub base_url: Url,
    /// The key, which also names the app.
    pub api_key: SecretString,
}

/// An app at Dify.
#[derive(Debug)]
pub struct Dify {
    endpoint: Endpoint,
}

/// What every call to the app needs.
#[derive(Debug, Clone)]
struct Endpoint {
    transport: Transport,
    /// Of `/chat-messages`.
    url: Url,
    headers: HeaderMap,
}

impl Dify {
    /// An app with these settings.
    ///
    /// # Errors
    /// Where the key cannot be sent in a header.
    pub fn new(transport: Transport, settings: &Settings) -> Result<Self, InvalidHeaderValue> {
        let mut url = settings.base_url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("chat-messages");
        }
        let headers = HeaderMap::from_iter([(AUTHORIZATION, key_header("Bearer ", &settings.api_key)?)]);
        Ok(Self { endpoint: Endpoint { transport, url, headers } })
    }

    async fn post(&self, prompt: &Prompt, conversation_id: &str) -> Result<Reply, ProviderError> {
        let request = Request {
            query: prompt.question(),
            inputs: Inputs {},
            response_mode: "streaming",
            user: &prompt.user,
            conversation_id,
            auto_generate_name: false,
        };
        self.endpoint.transport.post(&self.endpoint.url, &self.endpoint.headers, &request).await
    }
}

#[async_trait]
impl Provider for Dify {
    async fn generate(&self, prompt: &Prompt) -> Result<Box<dyn Generation>, ProviderError> {
        let mut conversation = prompt.conversation.as_deref().filter(|id| !id.is_empty());
        loop {
            let refusal = match self.post(prompt, conversation.unwrap_or_default()).await? {
                Reply::Stream(body) => {
                    return Ok(Box::new(Answer {
                        streaming: Streaming::new(body, Decoder::default()),
                        endpoint: self.endpoint.clone(),
                        user: prompt.user.clone(),
                    }));
                }
                Reply::Whole(body) => return Ok(Box::new(Whole::read(|out| Decoder::whole(&body, out))?)),
                Reply::Refused(refusal) => refusal,
            };
            let fault = serde_json::from_slice::<Fault>(&refusal.body).ok();
            if let Some(fault) = &fault
                && fault.wants_new_conversation(refusal.status)
                && let Some(lost) = conversation.take()
            {
                tracing::warn!(
                    conversation = lost,
                    said = fault.said(),
                    "the provider has lost a conversation; beginning anew"
                );
                continue;
            }
            let class = fault.as_ref().and_then(Fault::class).unwrap_or(class_of_status(refusal.status));
            let error = refusal.error(class, fault.as_ref().map(Fault::said));
            let should_retry = fault.and_then(|fault| fault.should_retry()).or(error.should_retry);
            return Err(ProviderError { should_retry, ..error });
        }
    }
}

/// An answer under way.
struct Answer {
    streaming: Streaming<Decoder>,
    endpoint: Endpoint,
    /// The one who asked: nobody else can stop it.
    user: String,
}

#[async_trait]
impl Generation for Answer {
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        self.streaming.next().await
    }

    async fn cancel(mut self: Box<Self>) {
        let until = Instant::now() + FIRST_EVENT;
        while self.streaming.pipe.decoder.task_id().is_none() && !self.streaming.pipe.ended() {
            if timeout_at(until, self.streaming.pump()).await.is_err() {
                break;
            }
        }
        if self.streaming.pipe.finished() {
            return;
        }
        let Some(task) = self.streaming.pipe.decoder.task_id() else { return };
        let mut url = self.endpoint.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend([task, "stop"]);
        }
        let stop = Stop { user: &self.user };
        match timeout(STOP_CALL, self.endpoint.transport.post(&url, &self.endpoint.headers, &stop)).await {
            Ok(Ok(Reply::Whole(_) | Reply::Stream(_))) => {}
            Ok(Ok(Reply::Refused(refusal))) => {
                tracing::warn!(status = refusal.status, "the provider refused to stop an answer");
            }
            Ok(Err(error)) => tracing::warn!(%error, "the provider could not be told to stop an answer"),
            Err(_) => tracing::warn!("the provider took too long to stop an answer"),
        }
    }
}
