//! A WebSocket handshake whose every part a test can change.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocketConfig};

use super::connection::Connection;
use super::raw_http::{self, HttpResponse};
use super::waits::within;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// An upgrade request, correct until a test changes it.
#[derive(Debug, Clone)]
pub struct HandshakeRequest {
    address: SocketAddr,
    path: String,
    method: String,
    headers: Vec<(String, String)>,
    from: Option<std::net::IpAddr>,
    buffer: usize,
    receive: Option<u32>,
}

impl HandshakeRequest {
    /// A correct request without any token.
    pub fn new(address: SocketAddr, path: impl Into<String>) -> Self {
        let headers = [
            ("Host", address.to_string()),
            ("Connection", "Upgrade".to_owned()),
            ("Upgrade", "websocket".to_owned()),
            ("Sec-WebSocket-Version", "13".to_owned()),
            ("Sec-WebSocket-Key", KEY.to_owned()),
        ];
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self {
            address,
            path: path.into(),
            method: "GET".to_owned(),
            headers,
            from: None,
            buffer: 16 * 1024,
            receive: None,
        }
    }

    /// Sets a header, replacing those of the same name.
    #[must_use]
    pub fn header(self, name: &str, value: impl Into<String>) -> Self {
        self.without(name).add(name, value)
    }

    /// Adds a header beside those of the same name.
    #[must_use]
    pub fn add(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Leaves a header out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self
    }

    /// With another method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// With the token in the Authorization header.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// With one more query parameter.
    #[must_use]
    pub fn query(mut self, key: &str, value: &str) -> Self {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        self.path = format!("{}{separator}{key}={value}", self.path);
        self
    }

    /// As this device.
    #[must_use]
    pub fn device(self, device: &str) -> Self {
        self.query("device", device)
    }

    /// From this local address.
    #[must_use]
    pub fn from(mut self, local: std::net::IpAddr) -> Self {
        self.from = Some(local);
        self
    }

    /// With buffers of this many bytes on the client's side.
    #[must_use]
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.buffer = bytes;
        self
    }

    /// With a receive buffer of this many bytes in the kernel, so that a client that does not read is full soon.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive = Some(bytes);
        self
    }

    /// The request's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Sends it and reads the plain HTTP response.
    ///
    /// # Errors
    /// No response came in time.
    pub async fn response(&self) -> Result<HttpResponse> {
        raw_http::exchange(self.address, &self.bytes()).await
    }

    /// Sends it and expects the upgrade. The connection is open, nothing was read from it yet.
    ///
    /// # Errors
    /// The server refused, or its answer is not a correct upgrade.
    pub async fn upgrade(&self) -> Result<(WebSocketStream<TcpStream>, HttpResponse)> {
        let work = async {
            let mut socket = self.dial().await?;
            socket.set_nodelay(true)?;
            socket.write_all(&self.bytes()).await?;
            let answer = raw_http::read_response(&mut socket).await?;
            ensure!(answer.status == 101, "refused with {} {}", answer.status, answer.text());
            let accept = answer.header("sec-websocket-accept").context("no Sec-WebSocket-Accept")?;
            ensure!(accept == derive_accept_key(KEY.as_bytes()), "a wrong Sec-WebSocket-Accept: {accept}");
            let config = WebSocketConfig::default().read_buffer_size(self.buffer).write_buffer_size(0);
            let rest = answer.body.clone();
            let socket = WebSocketStream::from_partially_read(socket, rest, Role::Client, Some(config)).await;
            Ok((socket, answer))
        };
        within(format!("the handshake with {}", self.address), work).await?
    }

    async fn dial(&self) -> Result<TcpStream> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = self.receive {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(local) = self.from {
            socket.bind(SocketAddr::new(local, 0))?;
        }
        Ok(socket.connect(self.address).await?)
    }

    /// Connects and waits for `welcome`.
    ///
    /// # Errors
    /// The server refused, or did not welcome in time.
    pub async fn connect(&self) -> Result<Connection> {
        let (socket, answer) = self.upgrade().await?;
        Connection::welcomed(socket, answer).await
    }
}
