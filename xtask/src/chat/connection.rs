//! One WebSocket connection to the gateway: the handshake, and whether to reconnect after its end.

use std::time::Duration;

use chatbox_client::Disconnect;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::{Error, protocol::CloseFrame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Time limit of the handshake.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects with the token in the `Authorization` header.
pub(super) async fn connect(url: &str, token: &str) -> Result<Socket, Disconnect> {
    let mut request = url.into_client_request().map_err(|error| Disconnect::Final(format!("{url}: {error}")))?;
    let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
    let bearer = bearer.map_err(|_| Disconnect::Final("the token contains invalid characters".to_owned()))?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    match tokio::time::timeout(CONNECT, connect_async(request)).await {
        Err(_) => Err(Disconnect::Retry(format!("no response from {url}"), None)),
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(handshake(url, &error)),
    }
}

fn handshake(url: &str, error: &Error) -> Disconnect {
    let Error::Http(response) = error else {
        return Disconnect::Retry(format!("no connection to {url}: {error}"), None);
    };
    let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = response.body().as_deref().unwrap_or_default();
    Disconnect::refused(response.status().as_u16(), after.map(Duration::from_secs), body)
}

/// Whether and when to reconnect after a close frame.
pub(super) fn closed(frame: Option<&CloseFrame>) -> Disconnect {
    Disconnect::closed(frame.map(|frame| (frame.code.into(), frame.reason.as_str())))
}
