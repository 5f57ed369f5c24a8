//! A client's connection that an answer can reset or half close.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const RESET: u8 = 1;
const HALF_CLOSED: u8 = 2;

/// How the connection of an answer is to be closed.
#[derive(Debug, Clone, Default)]
pub(super) struct CloseMode(Arc<AtomicU8>);

impl CloseMode {
    /// The next close sends a reset.
    pub(super) fn reset(&self) {
        self.0.store(RESET, Ordering::Release);
    }

    /// The next flush ends the sending half.
    pub(super) fn half_close(&self) {
        self.0.store(HALF_CLOSED, Ordering::Release);
    }

    fn is(&self, close_mode: u8) -> bool {
        self.0.load(Ordering::Acquire) == close_mode
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct FaultyStream {
    stream: TcpStream,
    close_mode: CloseMode,
}

impl FaultyStream {
    pub(super) fn new(stream: TcpStream, close_mode: CloseMode) -> Self {
        Self { stream, close_mode }
    }
}

impl Drop for FaultyStream {
    fn drop(&mut self) {
        if self.close_mode.is(RESET) {
            // Where this fails, the test that expects a reset fails too.
            let _set = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for FaultyStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.close_mode.is(HALF_CLOSED) {
            return Pin::new(&mut self.stream).poll_shutdown(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A FIN would arrive before the reset.
        if self.close_mode.is(RESET) { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_shutdown(cx) }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
