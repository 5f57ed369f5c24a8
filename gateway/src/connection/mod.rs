//! One WebSocket connection: one task, one loop, one closed list of what can happen.
//!
//! The loop waits only in its `select!`. A socket that accepts no bytes, a link without room and a token under
//! verification are states, so a kick, a full queue or a passed deadline is handled in all of them.

mod closing;
mod ending;
mod heartbeat;
mod reader;
mod refresh;
mod requests;
mod sessions;
mod state;
mod types;
mod uplink;
mod violations;
mod welcome;
mod write_state;
mod writer;

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use chatbox_shared::proto::GatewayFrame;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;

pub use types::{Accepted, ConnectionContext, ConnectionSettings, websocket_config};

use crate::send_queue::CloseCode;
use state::Connection;
use types::{CLOSE_TIMEOUT, ConnectionEvent};

/// Serves a connection until it ends. The connection is in the registry from this call on. A panic ends only this
/// connection: its client gets 1011, and its brain is told that it has ended.
///
/// Not an `async fn`, because every connection keeps this future and an `async fn` stores its arguments twice.
pub fn serve<S>(
    context: Arc<ConnectionContext>,
    accepted: Accepted,
    mut socket: WebSocketStream<S>,
) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut connection = Connection::new(context, accepted);
    async move {
        if AssertUnwindSafe(run(&mut connection, &mut socket)).catch_unwind().await.is_err() {
            connection.panicked();
            // The state of the connection is not used after the panic, except to leave the link and the registry.
            drop(tokio::time::timeout(CLOSE_TIMEOUT, socket.close(Some(CloseCode::INTERNAL.frame()))).await);
        }
        connection.uplink.end(connection.conn).await;
    }
}

async fn run<S>(connection: &mut Connection, socket: &mut WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut armed = connection.next_deadline();
    let mut timer = pin!(tokio::time::sleep_until(armed));
    loop {
        connection.send_up();
        let wanted = connection.next_deadline();
        // Deadlines mostly move into the future. A timer that fires too early costs less than a timer that is reset at
        // every frame.
        if wanted < armed || timer.is_elapsed() {
            armed = wanted;
            timer.as_mut().reset(wanted);
        }
        let event = tokio::select! {
            biased;
            () = &mut timer => ConnectionEvent::Timer,
            permit = room(connection.uplink.blocked()) => ConnectionEvent::Room(permit),
            event = poll_fn(|task| poll(connection, socket, task)) => event,
        };
        if connection.handle(event).is_break() {
            return;
        }
    }
}

/// Waits for room on a link.
async fn room(link: Option<mpsc::Sender<GatewayFrame>>) -> Option<mpsc::OwnedPermit<GatewayFrame>> {
    match link {
        Some(link) => link.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

/// The next event of the connection itself: first signals, then a verified token, then writing, then reading.
fn poll<S>(
    connection: &mut Connection,
    socket: &mut WebSocketStream<S>,
    task: &mut Context<'_>,
) -> Poll<ConnectionEvent>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(signal) = connection.queue.poll_signal(task) {
        return Poll::Ready(ConnectionEvent::Signal(signal));
    }
    if let Poll::Ready(refreshed) = connection.poll_refresh(task) {
        return Poll::Ready(ConnectionEvent::Refreshed(refreshed));
    }
    let written = connection.poll_write(socket, task);
    if connection.write_state.set_blocked(written.is_pending()) && connection.is_busy() {
        // The socket was writable until now: restart the idle timeout, so that only the blocked time counts.
        connection.heartbeat.heard(Instant::now());
    }
    match written {
        Poll::Ready(Err(error)) => return Poll::Ready(ConnectionEvent::Failed(error)),
        Poll::Ready(Ok(())) if connection.queue_receipts() => return Poll::Ready(ConnectionEvent::Uplink),
        _ => {}
    }
    connection.poll_read(socket, task)
}

#[cfg(test)]
mod tests;
