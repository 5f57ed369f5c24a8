//! The HTTP all providers share: one kind of client, JSON out, and back either a stream of bytes with a time limit between
//! them, a whole JSON reply, or a refusal. It knows no provider's words.

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

/// A whole JSON reply may not be larger.
const MAX_REPLY_BYTES: usize = 4 << 20;

/// The body of a refusal is read for this long: a status is worth more than the end of its explanation.
const ERROR_READ: Duration = Duration::from_secs(3);

/// After the end of an answer its body is read to the end for this long: a connection whose reply was read to the end
/// can carry the next request, any other is closed.
const DRAIN: Duration = Duration::from_millis(20);

/// The client of all calls to one kind of endpoint. Endpoints come from the configuration, so nothing else may steer it:
/// no proxy of the environment, no redirect (it would carry the key elsewhere), no compression (it holds bytes back).
///
/// `tls` loads the system's certificates; endpoints that speak plain HTTP do without, also where there are none.
///
/// # Errors
/// Where the system has no certificates to trust.
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

/// Makes calls to one endpoint. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transport {
    client: reqwest::Client,
    /// Until the head of the reply: local servers load their model first.
    head_timeout: Duration,
    /// Between two bytes of a body.
    idle_timeout: Duration,
    /// Known here only to be cut out of everything that goes to the log.
    key: Option<Arc<SecretString>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum HttpReply {
    /// An event stream.
    Stream(ReplyBody),
    /// A whole JSON document, although a stream was asked for.
    Whole(Vec<u8>),
    /// No success.
    Error(ErrorReply),
}

impl Transport {
    /// A transport over `client`, for an endpoint with this key.
    pub fn new(
        client: reqwest::Client,
        head_timeout: Duration,
        idle_timeout: Duration,
        key: Option<SecretString>,
    ) -> Self {
        Self { client, head_timeout, idle_timeout, key: key.map(Arc::new) }
    }

    /// Posts JSON and waits for the head of the reply.
    pub(crate) async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: &impl Serialize,
    ) -> Result<HttpReply, ProviderError> {
        self.send(self.client.post(url.clone()).headers(headers).json(body)).await
    }

    /// Posts a form with a file and waits for the head of the reply.
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
            // Servers that forget the header mean the stream that was asked for.
            "text/event-stream" | "" | "application/octet-stream" | "text/plain" => Ok(HttpReply::Stream(body)),
            other => {
                let detail = format!("the reply is {other:?} instead of an event stream");
                Err(self.redact(ProviderError::new(ErrorClass::Protocol, detail)))
            }
        }
    }

    /// Makes an error that quotes the provider fit for the log.
    pub(crate) fn redact(&self, error: ProviderError) -> ProviderError {
        for_log(self.key.as_deref(), error)
    }
}

/// The body of a reply. Dropping it closes the connection, or the stream of an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    response: reqwest::Response,
    idle_timeout: Duration,
    /// When silence becomes an error. An instant, not a duration: readers may be dropped and begin again many times
    /// between two bytes.
    idle_at: Instant,
    key: Option<Arc<SecretString>>,
}

impl ReplyBody {
    /// The next bytes; `None` at the clean end. Safe to drop and call again.
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
                let detail = format!("not a byte for {:?}", self.idle_timeout);
                Err(ProviderError::new(ErrorClass::Timeout, detail))
            }
        }
    }

    /// Reads what little is left, so that the connection can be used again.
    pub(crate) async fn drain(&mut self) {
        let rest = async { while let Ok(Some(_)) = self.chunk().await {} };
        // Running out of time is the other proper ending: the connection is closed then.
        let _ended_in_time = timeout(DRAIN, rest).await;
    }

    /// Makes an error that quotes the provider fit for the log.
    pub(crate) fn redact(&self, error: ProviderError) -> ProviderError {
        for_log(self.key.as_deref(), error)
    }

    /// The beginning of the body, as far as it comes without trouble.
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

/// These headers, and our name of the call, by which the provider can find it in its records. A name that cannot be sent,
/// or that OpenAI would refuse for its length, is left out.
pub(crate) fn with_request_id(headers: &HeaderMap, request_id: &str) -> HeaderMap {
    let mut headers = headers.clone();
    let fits = (1..=512).contains(&request_id.len()) && request_id.bytes().all(|byte| byte.is_ascii_graphic());
    if let (true, Ok(value)) = (fits, HeaderValue::from_str(request_id)) {
        headers.insert(HeaderName::from_static("x-client-request-id"), value);
    }
    headers
}

/// The key as a header value that no debug output shows.
///
/// # Errors
/// Where the key holds characters no header can carry.
pub(crate) fn key_header(prefix: &str, key: &SecretString) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{prefix}{}", key.expose_secret()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Without its parameters, such as `charset`.
fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A request that got no reply.
fn unsent(error: reqwest::Error) -> ProviderError {
    // Anything else broke after the request was on its way.
    let unsent = error.is_connect() || error.is_builder();
    let class = match () {
        () if error.is_timeout() && !error.is_connect() => ErrorClass::Timeout,
        () if error.is_builder() => ErrorClass::Rejected,
        () => ErrorClass::Connect,
    };
    ProviderError { unsent, ..ProviderError::new(class, chain(&error.without_url())) }
}

/// An error with its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Without the key, and short.
fn for_log(key: Option<&SecretString>, error: ProviderError) -> ProviderError {
    ProviderError { detail: detail_of(error.class, &redacted(key, &error.detail)), ..error }
}

fn redacted(key: Option<&SecretString>, text: &str) -> String {
    match key.map(|key| key.expose_secret()).filter(|key| !key.is_empty()) {
        Some(key) => text.replace(key, "[key]"),
        None => text.to_owned(),
    }
}
