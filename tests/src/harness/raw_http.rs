//! HTTP/1.1 without a library: the request is sent byte for byte as the test wrote it, and the response is what was on the
//! wire.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::waits::within;

/// A response as it was on the wire.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body. After 101: what had already been read of what follows.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The error code of the body.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends these bytes, reads one response and closes the connection.
///
/// # Errors
/// No whole response came in time.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Result<HttpResponse> {
    let talk = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(request).await?;
        read_response(&mut socket).await
    };
    within(format!("an HTTP answer of {address}"), talk).await?
}

/// GET of one path.
///
/// # Errors
/// No whole response came in time.
pub async fn get(address: SocketAddr, path: &str) -> Result<HttpResponse> {
    exchange(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await
}

/// Reads one response: the head, then as many bytes as `Content-Length` says (none for 101).
///
/// # Errors
/// The bytes are no HTTP response, or end too early.
pub async fn read_response(socket: &mut TcpStream) -> Result<HttpResponse> {
    let mut bytes = Vec::new();
    let head_length = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let read = socket.read_buf(&mut bytes).await?;
        ensure!(read > 0, "closed inside the head: {:?}", String::from_utf8_lossy(&bytes));
    };
    let head = String::from_utf8(bytes[..head_length].to_vec())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer = HttpResponse { status, headers, body: bytes.split_off(head_length + 4) };
    if status != 101 {
        read_body(socket, &mut answer).await?;
    }
    Ok(answer)
}

async fn read_body(socket: &mut TcpStream, answer: &mut HttpResponse) -> Result<()> {
    let length = answer.header("content-length").map(str::parse::<usize>).transpose()?;
    match length {
        Some(length) => {
            while answer.body.len() < length {
                ensure!(socket.read_buf(&mut answer.body).await? > 0, "closed inside the body");
            }
        }
        None => while socket.read_buf(&mut answer.body).await? > 0 {},
    }
    Ok(())
}
