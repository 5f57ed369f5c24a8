//! The handshake: every refusal with its status, code and headers, in the documented order; origins; tokens.

mod jwks;
mod order;
mod origin;
mod token;

use anyhow::{Result, ensure};
use chatbox_tests::harness::raw_http::HttpResponse;

/// A refusal is plain HTTP with a JSON body of exactly this shape, never a half-open WebSocket.
fn check_refusal(what: &str, answer: &HttpResponse, status: u16, code: &str) -> Result<()> {
    let body = answer.json();
    ensure!(answer.status == status && answer.code() == code, "{what}: {} {}", answer.status, answer.text());
    ensure!(answer.header("content-type") == Some("application/json"), "{what}: {:?}", answer.headers);
    let error = &body["error"];
    ensure!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}: no message in {body}");
    ensure!(error["error_id"].as_str().is_some_and(|text| text.len() == 32), "{what}: no error_id in {body}");
    let retry = matches!(status, 429 | 503);
    let after = answer.header("retry-after").and_then(|text| text.parse::<u64>().ok());
    ensure!(retry == after.is_some_and(|seconds| seconds >= 1), "{what}: Retry-After is {after:?}");
    Ok(())
}
