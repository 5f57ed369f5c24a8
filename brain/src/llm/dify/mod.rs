//! Dify's chat apps. They keep the history under a conversation id of their own, and go on generating when the connection
//! closes: stopping takes a call.

mod stream;
mod upload;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::{AUTHORIZATION, InvalidHeaderValue};
use secrecy::SecretString;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use self::stream::Decoder;
use self::wire::{Fault, File, Inputs, Request, Stop};
use super::http::{Refusal, Reply, Transport, class_of_status, key_header, with_request_id};
use super::stream::{Streaming, Whole};
use super::{Chunk, Generation, Prompt, Provider, ProviderError, Remedy};

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
    /// Of `/files/upload`.
    upload_url: Url,
    headers: HeaderMap,
}

impl Dify {
    /// An app with these settings.
    ///
    /// # Errors
    /// Where the key cannot be sent in a header.
    pub fn new(transport: Transport, settings: &Settings) -> Result<Self, InvalidHeaderValue> {
        let below = |path: &[&str]| {
            let mut url = settings.base_url.clone();
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop_if_empty().extend(path);
            }
            url
        };
        let (url, upload_url) = (below(&["chat-messages"]), below(&["files", "upload"]));
        let headers = HeaderMap::from_iter([(AUTHORIZATION, key_header("Bearer ", &settings.api_key)?)]);
        Ok(Self { endpoint: Endpoint { transport, url, upload_url, headers } })
    }
}

#[async_trait]
impl Provider for Dify {
    /// Pictures are uploaded first. These are calls of their own, and none for an answer.
    async fn generate(&self, prompt: &Prompt) -> Result<Box<dyn Generation>, ProviderError> {
        let headers = with_request_id(&self.endpoint.headers, &prompt.request_id);
        let mut files = Vec::new();
        for (index, image) in prompt.question_images().iter().enumerate() {
            files.push(File::image(self.endpoint.upload(headers.clone(), image, index, &prompt.user).await?));
        }
        let conversation_id = prompt.conversation.as_deref().unwrap_or_default();
        let request = Request {
            query: wire::query(prompt),
            inputs: Inputs {},
            response_mode: "streaming",
            user: &prompt.user,
            conversation_id,
            files,
            auto_generate_name: false,
        };
        match self.endpoint.transport.post(&self.endpoint.url, headers.clone(), &request).await? {
            Reply::Stream(body) => Ok(Box::new(Answer {
                streaming: Streaming::new(body, Decoder::default()),
                endpoint: Endpoint { headers, ..self.endpoint.clone() },
                user: prompt.user.clone(),
            })),
            Reply::Whole(body) => Whole::read(&self.endpoint.transport, |out| Decoder::whole(&body, out)),
            Reply::Refused(refusal) => {
                let fault = Fault::find(&refusal);
                let lost = fault.as_ref().is_some_and(|fault| fault.wants_new_conversation(refusal.status));
                let remedy = (lost && !conversation_id.is_empty()).then_some(Remedy::NewConversation);
                Err(ProviderError { remedy, ..refused(&refusal, fault) })
            }
        }
    }
}

fn refused(refusal: &Refusal, fault: Option<Fault>) -> ProviderError {
    let class = fault.as_ref().and_then(Fault::class).unwrap_or(class_of_status(refusal.status));
    let error = refusal.error(class, fault.as_ref().map(Fault::said));
    let should_retry = fault.and_then(|fault| fault.should_retry()).or(error.should_retry);
    ProviderError { should_retry, ..error }
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
        match timeout(STOP_CALL, self.endpoint.transport.post(&url, self.endpoint.headers.clone(), &stop)).await {
            Ok(Ok(Reply::Whole(_) | Reply::Stream(_))) => {}
            Ok(Ok(Reply::Refused(refusal))) => {
                tracing::warn!(status = refusal.status, "the provider refused to stop an answer");
            }
            Ok(Err(error)) => tracing::warn!(%error, "the provider could not be told to stop an answer"),
            Err(_) => tracing::warn!("the provider took too long to stop an answer"),
        }
    }
}
