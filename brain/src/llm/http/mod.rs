//! HTTP for all providers: the client, JSON requests, and replies as a stream with an idle timeout, a whole JSON
//! document, or an error. Knows no protocol.

mod error_reply;
mod multipart;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chatbox_shared::clock::{Clock, SystemClock};
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::{ErrorClass, ProviderError};

pub(crate) use error_reply::{ErrorReply, class_of_status, detail_of};
pub(crate) use multipart::Multipart;

/// The largest whole JSON reply.
const MAX_REPLY_BYTES: usize = 4 << 20;

/// Time for reading the body of an error reply: the status matters more than the rest of its explanation.
const ERROR_READ: Duration = Duration::from_secs(3);

/// Time for reading a body to its end after the answer has ended. A connection whose reply was read to the end can be
/// reused; any other is closed.
const DRAIN: Duration = Duration::from_millis(20);

/// An HTTP client. Only the configuration decides where requests go: no proxy from the environment, no redirects (they
/// would carry the key elsewhere), no compression (it delays bytes).
///
/// `tls` loads the system's certificates; plain HTTP works on systems without any.
///
/// # Errors
/// Where `tls` is set and the system has no trusted certificates.
pub fn client(connect_timeout: Duration, tls: bool) -> Result<reqwest::Client, reqwest::Error> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("chatbox/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(60))
        .tcp_keepalive_interval(Duration::from_secs(60))
        .tcp_keepalive_retries(5)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_keep_alive_timeout(Duration::from_secs(20));
    if tls { builder.build() } else { builder.tls_certs_only([]).build() }
}

/// Makes requests to one endpoint. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transport {
    client: reqwest::Client,
    /// Limit until the response head. Local servers load the model first.
    head_timeout: Duration,
    /// Limit between two reads of a body.
    idle_timeout: Duration,
    /// The API key, to be removed from everything that is logged.
    key: Option<Arc<SecretString>>,
}

/// The reply to a request.
#[derive(Debug)]
pub(crate) enum HttpReply {
    /// An event stream.
    Stream(ReplyBody),
    /// A whole JSON document although a stream was requested.
    Whole(Vec<u8>),
    /// A status other than success.
    Error(ErrorReply),
}

impl Transport {
    /// A transport for an endpoint with this key.
    pub fn new(
        client: reqwest::Client,
        head_timeout: Duration,
        idle_timeout: Duration,
        key: Option<SecretString>,
    ) -> Self {
        Self { client, head_timeout, idle_timeout, key: key.map(Arc::new) }
    }

    /// Posts JSON and waits for the response head.
    pub(crate) async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: &impl Serialize,
    ) -> Result<HttpReply, ProviderError> {
        self.send(self.client.post(url.clone()).headers(headers).json(body)).await
    }

    /// Posts a form with a file and waits for the response head.
    pub(crate) async fn upload(
        &self,
        url: &Url,
        headers: HeaderMap,
        form: Multipart,
    ) -> Result<HttpReply, ProviderError> {
        let (content_type, body) = form.finish();
        self.send(self.client.post(url.clone()).headers(headers).header(CONTENT_TYPE, content_type).body(body)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<HttpReply, ProviderError> {
        let request = request.header(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"));
        let response = match timeout(self.head_timeout, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.redact(unsent(error))),
            Err(_) => {
                let detail = format!("no reply within {:?}", self.head_timeout);
                return Err(ProviderError::new(ErrorClass::Timeout, detail));
            }
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = ReplyBody {
            response,
            idle_timeout: self.idle_timeout,
            idle_at: Instant::now() + self.idle_timeout,
            key: self.key.clone(),
        };
        if !status.is_success() {
            let said = body.prefix(error_reply::MAX_ERROR_BYTES).await;
            let said = redacted(self.key.as_deref(), &String::from_utf8_lossy(&said)).into_bytes();
            return Ok(HttpReply::Error(ErrorReply::new(status.as_u16(), &headers, said, SystemClock.now())));
        }
        if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            let detail = format!("the reply is encoded as {encoding:?}, which was not asked for");
            return Err(ProviderError::new(ErrorClass::Protocol, detail));
        }
        match media_type(&headers).as_str() {
            "application/json" => Ok(HttpReply::Whole(body.whole(MAX_REPLY_BYTES).await?)),
            // Servers without the header send the stream that was requested.
            "text/event-stream" | "" | "application/octet-stream" | "text/plain" => Ok(HttpReply::Stream(body)),
            other => {
                let detail = format!("the reply is {other:?} instead of an event stream");
                Err(self.redact(ProviderError::new(ErrorClass::Protocol, detail)))
            }
        }
    }

    /// Removes the key from an error and shortens it, for the log.
    pub(crate) fn redact(&self, error: ProviderError) -> ProviderError {
        for_log(self.key.as_deref(), error)
    }
}

/// The body of a reply. Dropping it closes the connection, or the stream of an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    response: reqwest::Response,
    idle_timeout: Duration,
    /// When the idle timeout expires. An instant, because a read may be cancelled and started again many times between
    /// two bytes.
    idle_at: Instant,
    key: Option<Arc<SecretString>>,
}

impl ReplyBody {
    /// The next bytes; `None` at the end of the body. Cancel safe.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ProviderError> {
        match timeout_at(self.idle_at, self.response.chunk()).await {
            Ok(Ok(bytes)) => {
                self.idle_at = Instant::now() + self.idle_timeout;
                Ok(bytes)
            }
            Ok(Err(error)) => {
                let detail = format!("the reply broke off: {}", chain(&error.without_url()));
                Err(ProviderError::new(ErrorClass::Truncated, detail))
            }
            Err(_) => {
                let detail = format!("no data for {:?}", self.idle_timeout);
                Err(ProviderError::new(ErrorClass::Timeout, detail))
            }
        }
    }

    /// Reads the rest, so that the connection can be reused.
    pub(crate) async fn drain(&mut self) {
        let rest = async { while let Ok(Some(_)) = self.chunk().await {} };
        // On a timeout the connection is closed instead.
        let _ended_in_time = timeout(DRAIN, rest).await;
    }

    /// Makes an error that quotes the provider fit for the log.
    pub(crate) fn redact(&self, error: ProviderError) -> ProviderError {
        for_log(self.key.as_deref(), error)
    }

    /// The first `limit` bytes of the body, or fewer where it ends or breaks.
    async fn prefix(&mut self, limit: usize) -> Vec<u8> {
        let until = Instant::now() + ERROR_READ;
        let mut whole = Vec::new();
        while let Ok(Ok(Some(bytes))) = timeout_at(until, self.chunk()).await {
            let room = limit - whole.len();
            whole.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
            if whole.len() == limit {
                break;
            }
        }
        whole
    }

    async fn whole(&mut self, limit: usize) -> Result<Vec<u8>, ProviderError> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            if whole.len() + bytes.len() > limit {
                let detail = format!("the reply is larger than {limit} bytes");
                return Err(ProviderError::new(ErrorClass::Protocol, detail));
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }
}

/// These headers with the call's id, by which the provider finds the call in its records. An id that no header can
/// carry, or that is too long for OpenAI, is left out.
pub(crate) fn with_request_id(headers: &HeaderMap, request_id: &str) -> HeaderMap {
    let mut headers = headers.clone();
    let fits = (1..=512).contains(&request_id.len()) && request_id.bytes().all(|byte| byte.is_ascii_graphic());
    if let (true, Ok(value)) = (fits, HeaderValue::from_str(request_id)) {
        headers.insert(HeaderName::from_static("x-client-request-id"), value);
    }
    headers
}

/// The key as a header value that debug output hides.
///
/// # Errors
/// Where a header cannot carry the key.
pub(crate) fn key_header(prefix: &str, key: &SecretString) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{prefix}{}", key.expose_secret()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The media type without its parameters.
fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The error of a request without a reply.
fn unsent(error: reqwest::Error) -> ProviderError {
    // In all other cases a part of the request may have been sent.
    let unsent = error.is_connect() || error.is_builder();
    let class = match () {
        () if error.is_timeout() && !error.is_connect() => ErrorClass::Timeout,
        () if error.is_builder() => ErrorClass::Rejected,
        () => ErrorClass::Connect,
    };
    ProviderError { unsent, ..ProviderError::new(class, chain(&error.without_url())) }
}

/// An error with its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The error without the key, shortened.
fn for_log(key: Option<&SecretString>, error: ProviderError) -> ProviderError {
    ProviderError { detail: detail_of(error.class, &redacted(key, &error.detail)), ..error }
}

fn redacted(key: Option<&SecretString>, text: &str) -> String {
    match key.map(|key| key.expose_secret()).filter(|key| !key.is_empty()) {
        Some(key) => text.replace(key, "[key]"),
        None => text.to_owned(),
    }
}
