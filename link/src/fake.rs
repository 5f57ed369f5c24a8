//! A brain for tests: a real gRPC server on a real socket. It sends the greeting; every other frame is read and written
//! by the test. A method that waits panics after ten seconds.
#![expect(clippy::expect_used, clippy::panic, reason = "used by tests only, which a panic ends with its reason")]

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::proto::link_server::{Link, LinkServer};
use chatbox_shared::proto::{self, BrainFrame, GatewayFrame, LINK_VERSION, brain_frame, gateway_frame, server_message};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Longest wait for anything that a test expects.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A brain that answers nothing but the greeting.
#[derive(Debug)]
pub struct FakeBrain {
    /// The address of its gRPC server.
    pub address: SocketAddr,
    links: mpsc::UnboundedReceiver<FakeLink>,
}

/// One attached link, from the side of the brain.
pub struct FakeLink {
    /// The first frame.
    pub hello: proto::Hello,
    incoming: Streaming<GatewayFrame>,
    outgoing: mpsc::Sender<Result<BrainFrame, Status>>,
}

struct LinkService {
    name: &'static str,
    version: u32,
    links: mpsc::UnboundedSender<FakeLink>,
}

#[tonic::async_trait]
impl Link for LinkService {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<BrainFrame, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<GatewayFrame>>) -> Result<Response<Self::AttachStream>, Status> {
        let mut incoming = request.into_inner();
        let Some(gateway_frame::Frame::Hello(hello)) = incoming.message().await?.and_then(|frame| frame.frame) else {
            return Err(Status::invalid_argument("the first frame must be a hello"));
        };
        let (outgoing, frames) = mpsc::channel(1024);
        let welcome = brain_frame::Frame::Welcome(proto::Welcome {
            brain_id: self.name.into(),
            link_version: self.version,
            models: vec![proto::Model { id: "demo".into(), name: "Demo".into() }],
            default_model_id: "demo".into(),
            max_content_chars: 100,
            replay_entries: 500,
        });
        drop(outgoing.send(Ok(BrainFrame { frame: Some(welcome) })).await);
        drop(self.links.send(FakeLink { hello, incoming, outgoing }));
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }
}

impl FakeBrain {
    /// Starts a brain on a free port.
    pub async fn start(name: &'static str, lifecycle: &Lifecycle) -> Self {
        Self::start_with(name, LINK_VERSION, lifecycle).await
    }

    /// Starts a brain that uses another version of the link protocol.
    pub async fn start_with(name: &'static str, version: u32, lifecycle: &Lifecycle) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (sender, links) = mpsc::unbounded_channel();
        let service = LinkServer::new(LinkService { name, version, links: sender });
        let server = tonic::transport::Server::builder().add_service(service);
        let stop = lifecycle.stopping().clone().cancelled_owned();
        lifecycle.spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming_shutdown(incoming, stop).await.expect("serve");
        });
        Self { address, links }
    }

    /// Waits for the next link.
    pub async fn link(&mut self) -> FakeLink {
        tokio::time::timeout(TIMEOUT, self.links.recv()).await.expect("a link in time").expect("a link")
    }
}

impl std::fmt::Debug for FakeLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeLink").field("hello", &self.hello).finish_non_exhaustive()
    }
}

impl FakeLink {
    /// Waits for the next frame of the gateway.
    pub async fn next(&mut self) -> gateway_frame::Frame {
        let frame = tokio::time::timeout(TIMEOUT, self.incoming.message()).await.expect("a frame in time");
        frame.expect("no error").expect("not the end").frame.expect("a known frame")
    }

    /// Waits until the gateway ends the stream.
    pub async fn ended(&mut self) {
        let frame = tokio::time::timeout(TIMEOUT, self.incoming.message()).await.expect("an end in time");
        assert!(matches!(frame, Ok(None) | Err(_)), "{frame:?}");
    }

    /// Waits for an `Open`, which must be the next frame.
    pub async fn open(&mut self) -> proto::Open {
        match self.next().await {
            gateway_frame::Frame::Open(open) => open,
            other => panic!("{other:?} instead of an open"),
        }
    }

    /// Waits for a `Request`, which must be the next frame.
    pub async fn request(&mut self) -> proto::Request {
        match self.next().await {
            gateway_frame::Frame::Request(request) => request,
            other => panic!("{other:?} instead of a request"),
        }
    }

    /// Sends a frame.
    pub async fn send(&self, frame: brain_frame::Frame) {
        self.outgoing.send(Ok(BrainFrame { frame: Some(frame) })).await.expect("the gateway listens");
    }

    /// Sends an event to connections.
    pub async fn deliver(&self, conns: &[u64], receipt: u64, message: server_message::Message) {
        let message = proto::ServerMessage { message: Some(message) }.encode_to_vec().into();
        self.send(brain_frame::Frame::Deliver(proto::Deliver { conns: conns.to_vec(), message, receipt })).await;
    }

    /// Replies to a request.
    pub async fn reply(&self, request: &proto::Request, message: Option<server_message::Message>) {
        let message = message.map(|message| proto::ServerMessage { message: Some(message) });
        let (conn, request_no) = (request.conn, request.request_no);
        self.send(brain_frame::Frame::Reply(proto::Reply { conn, request_no, message })).await;
    }
}
