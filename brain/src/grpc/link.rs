//! The gRPC service of the link: accepts a gateway's stream and hands it to a [`Gateway`].

use std::pin::Pin;
use std::sync::Arc;

use chatbox_shared::proto::{
    BrainFrame, GatewayFrame, LINK_VERSION, brain_frame, gateway_frame::Frame, link_server::Link,
};
use futures_util::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::gateway::Gateway;
use super::parts::LinkParts;
use super::send_queue::send_queue;

/// Serves `chatbox.v1.Link`.
#[derive(Clone)]
pub struct LinkService {
    /// What all links share.
    pub parts: Arc<LinkParts>,
}

#[tonic::async_trait]
impl Link for LinkService {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<BrainFrame, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<GatewayFrame>>) -> Result<Response<Self::AttachStream>, Status> {
        if !*self.parts.store_prepared.borrow() {
            return Err(Status::unavailable("the store is not ready yet"));
        }
        let mut frames = request.into_inner();
        let hello = match frames.message().await?.and_then(|frame| frame.frame) {
            Some(Frame::Hello(hello)) => hello,
            _ => return Err(Status::invalid_argument("the first frame must be hello")),
        };
        if hello.link_version != LINK_VERSION {
            let text = format!("this brain speaks link version {LINK_VERSION}, not {}", hello.link_version);
            return Err(Status::failed_precondition(text));
        }
        let (queue, reader) = send_queue();
        queue.send(brain_frame::Frame::Welcome(self.parts.welcome()));
        let gateway = Gateway::new(Arc::clone(&self.parts), hello.gateway_id, queue);
        self.parts.lifecycle.spawn(gateway.run(frames));
        let frames = futures_util::stream::unfold(reader, |mut reader| async move {
            reader.next().await.map(|frame| (Ok(frame), reader))
        });
        Ok(Response::new(Box::pin(frames)))
    }
}
