//! A client for measurements: it searches the text of frames and keeps nothing.

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tungstenite::{Message, Utf8Bytes};

use crate::harness::handshake::HandshakeRequest;
use crate::harness::waits::{TIMEOUT, within_time};

/// Buffer of a client's socket, in bytes. Small: there are thousands of them.
const BUFFER: usize = 1024;

/// One connected client.
#[derive(Debug)]
pub struct LeanClient(WebSocketStream<TcpStream>);

impl LeanClient {
    /// Connects and opens a session of its own.
    ///
    /// # Errors
    /// It was refused.
    pub async fn open(handshake: HandshakeRequest, session: &str) -> Result<Self> {
        let (socket, _) = handshake.buffer(BUFFER).upgrade().await?;
        let mut client = Self(socket);
        client.send(format!(r#"{{"type":"session_open","session_id":"{session}","create":true}}"#)).await?;
        client.wait_for(r#""session_ready""#).await?;
        Ok(client)
    }

    /// Sends a text frame.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, text: String) -> Result<()> {
        Ok(self.0.send(Message::text(text)).await?)
    }

    /// The next text frame.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn next(&mut self) -> Result<Utf8Bytes> {
        loop {
            match self.0.next().await.context("the connection ended")?? {
                Message::Text(text) => return Ok(text),
                Message::Close(frame) => bail!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Passes over frames until one contains `needle`. An error frame ends the wait.
    ///
    /// # Errors
    /// None came in time, or an error frame did.
    pub async fn wait_for(&mut self, needle: &str) -> Result<Utf8Bytes> {
        let search = async {
            loop {
                let text = self.next().await?;
                if text.contains(needle) {
                    return Ok(text);
                }
                if text.contains(r#""type":"error""#) {
                    bail!("refused: {text}");
                }
            }
        };
        within_time(TIMEOUT * 4, needle, search).await?
    }

    /// Reads (and so answers pings) until the connection ends.
    pub async fn idle(mut self) {
        while self.next().await.is_ok() {}
    }
}
