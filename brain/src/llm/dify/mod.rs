//! Dify's chat apps. They keep the history under their own conversation id. They continue to generate after the
//! connection closes, so stopping takes a request.

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
use self::wire::{AttachedFile, DifyError, Inputs, Request, StopRequest};
use super::http::{ErrorReply, HttpReply, Transport, class_of_status, key_header, with_request_id};
use super::stream::{Streaming, Whole};
use super::{Chunk, Generation, Prompt, Provider, ProviderError, Remedy};

/// Where the API of Dify's cloud begins.
pub const BASE_URL: &str = "https://api.dify.ai/v1";

/// How long a cancelled stream is read for its first event, which contains the id to stop it by.
const FIRST_EVENT: Duration = Duration::from_millis(300);

/// Limit of the stop request, after which the connection is closed without it. Both limits together stay under a
/// second.
const STOP_CALL: Duration = Duration::from_millis(600);

/// The settings of an app. Model, instructions and limits belong to the app at Dify.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The base URL: requests append `/chat-messages`.
    pub base_url: Url,
    /// The API key, which also selects the app.
    pub api_key: SecretString,
}

/// An app at Dify.
#[derive(Debug)]
pub struct Dify {
    client: AppClient,
}

/// What every request to the app needs.
#[derive(Debug, Clone)]
struct AppClient {
    transport: Transport,
    /// The URL of `/chat-messages`.
    url: Url,
    /// The URL of `/files/upload`.
    upload_url: Url,
    headers: HeaderMap,
}

impl Dify {
    /// An app with these settings.
    ///
    /// # Errors
    /// Where a header cannot carry the key.
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
        Ok(Self { client: AppClient { transport, url, upload_url, headers } })
    }
}

#[async_trait]
impl Provider for Dify {
    /// Uploads the images first. An upload is a request of its own and generates no answer.
    async fn generate(&self, prompt: &Prompt) -> Result<Box<dyn Generation>, ProviderError> {
        let headers = with_request_id(&self.client.headers, &prompt.request_id);
        let mut files = Vec::new();
        for (index, image) in prompt.question_images().iter().enumerate() {
            files.push(AttachedFile::image(self.client.upload(headers.clone(), image, index, &prompt.user).await?));
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
        match self.client.transport.post(&self.client.url, headers.clone(), &request).await? {
            HttpReply::Stream(body) => Ok(Box::new(DifyGeneration {
                streaming: Streaming::new(body, Decoder::default()),
                client: AppClient { headers, ..self.client.clone() },
                user: prompt.user.clone(),
            })),
            HttpReply::Whole(body) => Whole::read(&self.client.transport, |out| Decoder::whole(&body, out)),
            HttpReply::Error(reply) => {
                let dify_error = DifyError::find(&reply);
                let lost =
                    dify_error.as_ref().is_some_and(|dify_error| dify_error.wants_new_conversation(reply.status));
                let remedy = (lost && !conversation_id.is_empty()).then_some(Remedy::NewConversation);
                Err(ProviderError { remedy, ..refused(&reply, dify_error) })
            }
        }
    }
}

fn refused(reply: &ErrorReply, dify_error: Option<DifyError>) -> ProviderError {
    let class = dify_error.as_ref().and_then(DifyError::class).unwrap_or(class_of_status(reply.status));
    let error = reply.error(class, dify_error.as_ref().map(DifyError::said));
    let should_retry = dify_error.and_then(|dify_error| dify_error.should_retry()).or(error.should_retry);
    ProviderError { should_retry, ..error }
}

/// An answer under way.
struct DifyGeneration {
    streaming: Streaming<Decoder>,
    client: AppClient,
    /// The user who asked: only this user can stop the answer.
    user: String,
}

#[async_trait]
impl Generation for DifyGeneration {
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
        let mut url = self.client.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend([task, "stop"]);
        }
        let stop = StopRequest { user: &self.user };
        match timeout(STOP_CALL, self.client.transport.post(&url, self.client.headers.clone(), &stop)).await {
            Ok(Ok(HttpReply::Whole(_) | HttpReply::Stream(_))) => {}
            Ok(Ok(HttpReply::Error(reply))) => {
                tracing::warn!(status = reply.status, "the provider rejected the stop request");
            }
            Ok(Err(error)) => tracing::warn!(%error, "the stop request failed"),
            Err(_) => tracing::warn!("the stop request timed out"),
        }
    }
}
