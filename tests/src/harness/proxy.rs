//! A TCP proxy between two services: a test can cut all its connections, or make it swallow all data without closing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the proxy does with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Forwards everything. Each cut changes the number and ends the connections of the number before.
    Pass(u64),
    /// Swallows everything both ways, also of new connections, and closes nothing.
    Swallow(u64),
}

impl Mode {
    fn round(self) -> u64 {
        match self {
            Self::Pass(round) | Self::Swallow(round) => round,
        }
    }
}

/// A running proxy. It ends when dropped, with its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts one before `target`, on a free port.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mode = Arc::new(watch::Sender::new(Mode::Pass(0)));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, Arc::clone(&mode)));
        Ok(Self { address, mode, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection at once. New ones pass.
    pub fn cut(&self) {
        self.mode.send_modify(|mode| *mode = Mode::Pass(mode.round() + 1));
    }

    /// From now on all data is lost and no connection is closed.
    pub fn swallow(&self) {
        self.mode.send_modify(|mode| *mode = Mode::Swallow(mode.round()));
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, mode: Arc<watch::Sender<Mode>>) {
    let mut connections = JoinSet::new();
    // Where accepting fails, the test that needs the proxy fails too.
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, target, mode.subscribe()));
    }
}

async fn connection(stream: TcpStream, target: SocketAddr, mode: watch::Receiver<Mode>) {
    let Ok(upstream) = TcpStream::connect(target).await else { return };
    if stream.set_nodelay(true).and(upstream.set_nodelay(true)).is_err() {
        return;
    }
    let mut ending = mode.clone();
    let round = ending.borrow().round();
    let (mut from_client, mut to_client) = stream.into_split();
    let (mut from_target, mut to_target) = upstream.into_split();
    // Returning drops all halves, which closes both sides. An end is swallowed like data.
    tokio::select! {
        () = pass(&mut from_client, &mut to_target, mode.clone()) => {}
        () = pass(&mut from_target, &mut to_client, mode.clone()) => {}
        _cut = ending.wait_for(|mode| mode.round() != round) => {}
    }
}

async fn pass(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or_default();
        let swallows = matches!(*mode.borrow(), Mode::Swallow(_));
        match (read, swallows) {
            (0, true) => std::future::pending().await,
            (0, false) => return,
            (_, true) => {}
            (read, false) => {
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::waits::within;

    #[tokio::test]
    async fn what_passes_is_cut_or_swallowed_on_demand() -> Result<()> {
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let proxy = Proxy::start(echo.local_addr()?).await?;
        let mut client = TcpStream::connect(proxy.address()).await?;
        let (mut server, _) = within("the connection", echo.accept()).await??;
        client.write_all(b"a").await?;
        assert_eq!(within("a byte", server.read_u8()).await??, b'a');
        proxy.cut();
        assert_eq!(within("the end", client.read(&mut [0; 8])).await?.unwrap_or_default(), 0);
        assert_eq!(within("the end", server.read(&mut [0; 8])).await?.unwrap_or_default(), 0);

        let mut client = TcpStream::connect(proxy.address()).await?;
        let (mut server, _) = within("another connection", echo.accept()).await??;
        proxy.swallow();
        client.write_all(b"lost").await?;
        let mut silent = TcpStream::connect(proxy.address()).await?;
        silent.write_all(b"lost").await?;
        let read = tokio::time::timeout(std::time::Duration::from_millis(100), server.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
        Ok(())
    }
}
