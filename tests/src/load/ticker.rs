//! A provider made for numbers: speaks just enough of the chat completions protocol, and each delta is the time at which
//! it was written, in nanoseconds since the ticker's start.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Digits of a time in a delta, followed by a space.
pub const STAMP: usize = 16;

/// What every stream of the ticker does.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Deltas per second.
    pub rate: u32,
    /// For how long; none: it takes the request and never says a word.
    pub time: Option<Duration>,
}

/// A running ticker; it ends with this value.
#[derive(Debug)]
pub struct Ticker {
    address: SocketAddr,
    start: Instant,
    _task: JoinSet<()>,
}

impl Ticker {
    /// Starts on a free port.
    ///
    /// # Errors
    /// There is none.
    pub async fn start(pace: Pace) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let start = Instant::now();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                streams.spawn(async move { drop(answer(socket, pace, start).await) });
            }
        });
        Ok(Self { address, start, _task: task })
    }

    /// Where its API begins.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The moment all times count from.
    pub fn origin(&self) -> Instant {
        self.start
    }
}

/// The time since `origin` as it stands in a delta.
pub fn stamp(origin: Instant) -> String {
    format!("{:016} ", origin.elapsed().as_nanos())
}

/// How long ago each of the times in `text` was, in nanoseconds.
pub fn ages(text: &str, origin: Instant) -> impl Iterator<Item = u64> {
    let now = u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    text.split(' ').filter_map(|it| it.parse::<u64>().ok()).map(move |then| now.saturating_sub(then))
}

async fn answer(mut socket: TcpStream, pace: Pace, origin: Instant) -> Result<()> {
    socket.set_nodelay(true)?;
    read_request(&mut socket).await?;
    let Some(time) = pace.time else {
        // Hold the connection until the other side ends it.
        let mut rest = [0; 64];
        while socket.read(&mut rest).await? > 0 {}
        return Ok(());
    };
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await?;
    let mut ticks = interval_at(Instant::now(), Duration::from_secs(1) / pace.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + time;
    while ticks.tick().await < end {
        let event = chunk_event(&format!(r#"{{"content":"{}"}}"#, stamp(origin)), "null");
        socket.write_all(&http_chunk(&event)).await?;
    }
    let last = format!("{}data: [DONE]\n\n", chunk_event("{}", "\"stop\""));
    socket.write_all(&http_chunk(&last)).await?;
    socket.write_all(b"0\r\n\r\n").await?;
    Ok(())
}

fn chunk_event(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

fn http_chunk(body: &str) -> Vec<u8> {
    format!("{:x}\r\n{body}\r\n", body.len()).into_bytes()
}

async fn read_request(socket: &mut TcpStream) -> Result<()> {
    let mut request = Vec::new();
    loop {
        if let Some(head) = request.windows(4).position(|it| it == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).context("no length")?;
            if request.len() >= head + 4 + length.trim().parse::<usize>()? {
                return Ok(());
            }
        }
        anyhow::ensure!(socket.read_buf(&mut request).await? > 0, "the request ended early");
    }
}
