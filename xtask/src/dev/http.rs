//! The smallest HTTP client: one GET, answered by a server on this machine.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(3);
const MAX_BYTES: u64 = 1 << 20;

/// Asks `host:port` for `path` and returns status and body. HTTP/1.0, so that the body ends with the connection.
pub(super) async fn get(host: &str, path: &str) -> Result<(u16, String)> {
    tokio::time::timeout(LIMIT, exchange(host, path)).await.with_context(|| format!("{host} does not answer"))?
}

async fn exchange(host: &str, path: &str) -> Result<(u16, String)> {
    let mut socket = TcpStream::connect(host).await.with_context(|| format!("no connection to {host}"))?;
    socket.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(MAX_BYTES).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{host} does not speak HTTP"))?;
    let mut words = head.split(' ');
    ensure!(words.next().is_some_and(|version| version.starts_with("HTTP/1.")), "{host} does not speak HTTP");
    let status =
        words.next().and_then(|word| word.get(..3)?.parse().ok()).with_context(|| format!("{host} gives no status"))?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(text: &'static str) -> Result<(u16, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 256];
            let length = socket.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.0\r\n"));
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
        assert_eq!(answered("HTTP/1.0 200\r\n\r\n").await.unwrap(), (200, String::new()));
    }

    #[tokio::test]
    async fn other_protocols_are_errors() {
        assert!(answered("SSH-2.0-x\r\n\r\n").await.is_err());
        assert!(answered("HTTP/1.1 abc\r\n\r\n").await.is_err());
        assert!(answered("").await.is_err());
    }
}
