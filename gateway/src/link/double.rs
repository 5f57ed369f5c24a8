//! A brain as a test wants it: a real gRPC server on a real socket whose frames are read and written by the test.

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

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A brain that answers nothing by itself but the greeting.
pub(crate) struct Brain {
    pub(crate) address: SocketAddr,
    links: mpsc::UnboundedReceiver<BrainLink>,
}

/// One attached gateway.
pub(crate) struct BrainLink {
    pub(crate) hello: proto::Hello,
    inbound: Streaming<GatewayFrame>,
    outbound: mpsc::Sender<Result<BrainFrame, Status>>,
}

struct Service {
    name: &'static str,
    version: u32,
    links: mpsc::UnboundedSender<BrainLink>,
}

#[tonic::async_trait]
impl Link for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<BrainFrame, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<GatewayFrame>>) -> Result<Response<Self::AttachStream>, Status> {
        let mut inbound = request.into_inner();
        let Some(gateway_frame::Frame::Hello(hello)) = inbound.message().await?.and_then(|frame| frame.frame) else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (outbound, frames) = mpsc::channel(1024);
        let welcome = brain_frame::Frame::Welcome(proto::Welcome {
            brain_id: self.name.into(),
            link_version: self.version,
            models: vec![proto::Model { id: "demo".into(), name: "Demo".into() }],
            default_model_id: "demo".into(),
            max_content_chars: 100,
            replay_entries: 500,
        });
        drop(outbound.send(Ok(BrainFrame { frame: Some(welcome) })).await);
        drop(self.links.send(BrainLink { hello, inbound, outbound }));
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }
}

impl Brain {
    /// A brain that serves on a free port.
    pub(crate) async fn start(name: &'static str, lifecycle: &Lifecycle) -> Self {
        Self::start_with(name, LINK_VERSION, lifecycle).await
    }

    /// The same with a link version of its own.
    pub(crate) async fn start_with(name: &'static str, version: u32, lifecycle: &Lifecycle) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (sender, links) = mpsc::unbounded_channel();
        let service = LinkServer::new(Service { name, version, links: sender });
        let server = tonic::transport::Server::builder().add_service(service);
        let stop = lifecycle.stopping().clone().cancelled_owned();
        lifecycle.spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming_shutdown(incoming, stop).await.expect("serve");
        });
        Self { address, links }
    }

    /// The next gateway that attaches.
    pub(crate) async fn link(&mut self) -> BrainLink {
        tokio::time::timeout(PATIENCE, self.links.recv()).await.expect("a gateway in time").expect("a gateway")
    }
}

impl BrainLink {
    /// The next frame of the gateway.
    pub(crate) async fn next(&mut self) -> gateway_frame::Frame {
        let frame = tokio::time::timeout(PATIENCE, self.inbound.message()).await.expect("a frame in time");
        frame.expect("no error").expect("not the end").frame.expect("a known frame")
    }

    /// The gateway ends the stream.
    pub(crate) async fn ended(&mut self) {
        let frame = tokio::time::timeout(PATIENCE, self.inbound.message()).await.expect("an end in time");
        assert!(matches!(frame, Ok(None) | Err(_)), "{frame:?}");
    }

    pub(crate) async fn open(&mut self) -> proto::Open {
        match self.next().await {
            gateway_frame::Frame::Open(open) => open,
            other => panic!("{other:?} instead of an open"),
        }
    }

    pub(crate) async fn request(&mut self) -> proto::Request {
        match self.next().await {
            gateway_frame::Frame::Request(request) => request,
            other => panic!("{other:?} instead of a request"),
        }
    }

    pub(crate) async fn send(&self, frame: brain_frame::Frame) {
        self.outbound.send(Ok(BrainFrame { frame: Some(frame) })).await.expect("the gateway listens");
    }

    pub(crate) async fn deliver(&self, conns: &[u64], receipt: u64, message: server_message::Message) {
        let message = proto::ServerMessage { message: Some(message) }.encode_to_vec().into();
        self.send(brain_frame::Frame::Deliver(proto::Deliver { conns: conns.to_vec(), message, receipt })).await;
    }

    pub(crate) async fn reply(&self, request: &proto::Request, message: Option<server_message::Message>) {
        let message = message.map(|message| proto::ServerMessage { message: Some(message) });
        let (conn, request_no) = (request.conn, request.request_no);
        self.send(brain_frame::Frame::Reply(proto::Reply { conn, request_no, message })).await;
    }
}
