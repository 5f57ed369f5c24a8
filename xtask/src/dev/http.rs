//! One HTTP GET request, for readiness and for the models of an Ollama server.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Time limit of the whole exchange.
const LIMIT: Duration = Duration::from_secs(3);
const MAX_BYTES: usize = 1 << 20;

/// Sends `GET path` to `host:port`. Returns the status and the body.
pub(super) async fn get(host: &str, path: &str) -> Result<(u16, String)> {
    tokio::time::timeout(LIMIT, exchange(host, path)).await.with_context(|| format!("no response from {host}"))?
}

async fn exchange(host: &str, path: &str) -> Result<(u16, String)> {
    let socket = TcpStream::connect(host).await.with_context(|| format!("no connection to {host}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new())?;
    let exchange = async move {
        let response =
            sender.send_request(request).await.with_context(|| format!("the response of {host} is not HTTP"))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(|error| anyhow!(error))?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    // The connection ends when the sender is dropped. The sender returns the errors of the connection.
    let (result, _) = tokio::join!(exchange, connection);
    result
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(text: &'static str) -> Result<(u16, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 256];
            let length = socket.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            socket.write_all(text.as_bytes()).await.unwrap();
        };
        tokio::join!(get(&host, "/readyz"), server).0
    }

    #[tokio::test]
    async fn status_and_body_are_returned() {
        assert_eq!(
            answered("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nnot yet\n").await.unwrap(),
            (503, "not yet\n".to_owned())
        );
        assert_eq!(answered("HTTP/1.0 200 OK\r\n\r\n").await.unwrap(), (200, String::new()));
    }

    #[tokio::test]
    async fn other_protocols_are_errors() {
        assert!(answered("SSH-2.0-x\r\n\r\n").await.is_err());
        assert!(answered("HTTP/1.1 abc\r\n\r\n").await.is_err());
        assert!(answered("").await.is_err());
    }
}
