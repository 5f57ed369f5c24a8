//! A server that records requests as bytes, for bodies that are not JSON, and sends prepared replies in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// The first line and the headers, in lower case.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// A reply: the status with its reason, the content type and the body.
pub(crate) type Canned = (&'static str, &'static str, String);

/// The server. Dropping it stops it.
pub(crate) struct Raw {
    /// The `base_url` of a model at this server.
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    _task: JoinSet<()>,
}

impl Raw {
    /// Starts the server. Each request gets the next reply.
    pub(crate) async fn start(replies: impl IntoIterator<Item = Canned>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let mut task = JoinSet::new();
        task.spawn(serve(listener, replies.into_iter().collect(), Arc::clone(&received)));
        Self { url, received, _task: task }
    }

    /// The requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, mut replies: VecDeque<Canned>, received: Arc<Mutex<Vec<Received>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut stream = BufStream::new(stream);
        let request = read(&mut stream).await;
        received.lock().unwrap().push(request);
        let (status, content_type, body) = replies.pop_front().unwrap();
        let length = body.len();
        let reply = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(reply.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }
}

async fn read(stream: &mut BufStream<TcpStream>) -> Received {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        stream.read_line(&mut head).await.unwrap();
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    Received { head, body }
}
