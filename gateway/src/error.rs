//! Errors as HTTP responses: status, headers and the body that `docs/protocol.md` defines.

use bytes::Bytes;
use chatbox_shared::failure::{ErrorCode, Failure};
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorJson<'a>,
}

#[derive(Serialize)]
struct ErrorJson<'a> {
    code: &'static str,
    message: &'a str,
    error_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

/// The response to a failed request, with the status of its error code.
pub fn response(failure: &Failure) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    with_status(status, failure)
}

/// The bytes of the response to a socket that gets no HTTP connection.
pub fn raw_response(failure: &Failure) -> Vec<u8> {
    let (response, body) = (response(failure), body(failure));
    let mut bytes = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", response.status(), body.len()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}

/// The response to a method that the path does not support.
pub fn method_not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let failure = Failure::with_message(ErrorCode::InvalidMessage, "This method is not supported here.");
    let mut response = with_status(StatusCode::METHOD_NOT_ALLOWED, &failure);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn body(failure: &Failure) -> Vec<u8> {
    let error = ErrorJson {
        code: failure.code.as_str(),
        message: &failure.message,
        error_id: &failure.error_id,
        field: failure.field.as_deref(),
    };
    serde_json::to_vec(&ErrorBody { error }).unwrap_or_default()
}

fn with_status(status: StatusCode, failure: &Failure) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body(failure)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A socket gets one refusal: a client that tries again connects again, and is counted again.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(wait) = failure.retry_after {
        // Whole seconds, rounded up.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    match failure.code {
        ErrorCode::Unauthorized => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        ErrorCode::UpgradeRequired => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade, close"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        _ => {}
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::time::Duration;

    #[tokio::test]
    async fn a_failure_becomes_its_status_body_and_headers() {
        let failure = Failure::new(ErrorCode::RateLimited).retry_after(Duration::from_millis(1200));
        let response = response(&failure);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        let body = response.into_body().collect().await.expect("body").to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("json");
        let expected = serde_json::json!({
            "error": {"code": "rate_limited", "message": "Too many requests; slow down.", "error_id": failure.error_id}
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn each_kind_of_error_has_its_header() {
        assert_eq!(response(&Failure::new(ErrorCode::Unauthorized)).headers()[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(response(&Failure::new(ErrorCode::UpgradeRequired)).headers()[SEC_WEBSOCKET_VERSION], "13");
        assert_eq!(method_not_allowed("GET").headers()[ALLOW], "GET");
    }
}
