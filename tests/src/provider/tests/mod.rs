//! The fake provider and real HTTP clients: every behaviour, byte for byte.

mod admin;
mod broken;
mod contents;
mod event_order;
mod formatted;
mod pacing;
mod refused;
mod stopped;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// The paths of the three protocols.
const PATHS: [&str; 3] = ["/chat/completions", "/messages", "/chat-messages"];
const OPENAI: &str = PATHS[0];
const ANTHROPIC: &str = PATHS[1];
const DIFY: &str = PATHS[2];

fn client() -> reqwest::Client {
    // No authorities to load: nothing here is encrypted.
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

fn question() -> Value {
    json!({"model": "m", "stream_options": {"include_usage": true}, "user": "u"})
}

async fn post(provider: &FakeProvider, path: &str) -> reqwest::Result<reqwest::Response> {
    client().post(provider.url() + path).json(&question()).send().await
}

/// The whole body of a script, from a new fake provider, so that all ids are the same.
async fn played(script: Script, path: &str) -> String {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(script);
    post(&provider, path).await.unwrap().text().await.unwrap()
}

/// The data of each event of a plain body that is JSON.
fn events(body: &str) -> Vec<Value> {
    body.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect()
}

/// The reply over a bare socket: its bytes, and how they ended.
async fn raw(provider: &FakeProvider, path: &str) -> (Vec<u8>, std::io::Result<usize>, TcpStream) {
    let mut stream = TcpStream::connect(provider.addr()).await.unwrap();
    let body = question().to_string();
    let head = format!("POST /v1{path} HTTP/1.1\r\nhost: fake\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break Ok(0),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) => break Err(error),
        }
    };
    (bytes, end, stream)
}

/// The only call so far, once it has ended.
async fn ended(provider: &FakeProvider) -> Call {
    let calls = provider.wait_until(|calls| calls.first().is_some_and(|call| call.end.is_some())).await.unwrap();
    calls[0].clone()
}
