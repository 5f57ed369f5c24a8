//! One link from its connection to its end: the greeting, then frames both ways. What comes in is handed to the roster
//! at once; nothing here ever waits for a single connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use chatbox_shared::proto::brain_frame::Frame;
use chatbox_shared::proto::gateway_frame;
use chatbox_shared::proto::link_client::LinkClient;
use chatbox_shared::proto::{self, BrainFrame, GatewayFrame, LINK_VERSION};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::endpoint::Address;
use super::{BrainInfo, Link, LinkSettings, LinkState, Links};

/// Frames waiting for the stream, of all connections together.
const OUTGOING_FRAMES: usize = 256;
/// Largest frame a brain may send: a page of entries.
const MAX_FRAME_BYTES: usize = 16 << 20;

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// Nobody answers, or not by the rules of TLS or HTTP/2.
    #[error("cannot connect: {0:?}")]
    Connect(#[from] tonic::transport::Error),
    /// It takes too long.
    #[error("no greeting within {0:?}")]
    Timeout(Duration),
    /// The stream was refused.
    #[error("refused: {}", .0.message())]
    Refused(Box<tonic::Status>),
    /// The first frame was not a greeting.
    #[error("the brain did not greet")]
    Silent,
    /// The brain is of another version.
    #[error("the brain {brain} speaks link version {theirs}, this gateway {LINK_VERSION}")]
    Version {
        /// The brain's name.
        brain: String,
        /// Its version.
        theirs: u32,
    },
    /// It was up, and broke.
    #[error("{}", .0.message())]
    Lost(Box<tonic::Status>),
}

/// Connects, and serves the link until it ends. `Ok` where the brain or this process ended it.
pub(super) async fn run(
    address: Address,
    settings: &LinkSettings,
    links: &Links,
    end: &CancellationToken,
) -> Result<(), LinkError> {
    let patience = settings.connect_timeout * 2;
    let greeting = Box::pin(greet(address, settings));
    let (sender, mut inbound, welcome) =
        tokio::time::timeout(patience, greeting).await.map_err(|_| LinkError::Timeout(patience))??;
    let link = Arc::new(Link {
        id: links.0.last_link.fetch_add(1, Ordering::Relaxed) + 1,
        brain: welcome.brain_id.as_str().into(),
        sender,
        state: AtomicU8::new(LinkState::Ready as u8),
        users: AtomicUsize::new(0),
        unused: Notify::new(),
    });
    tracing::info!(%address, brain = %link.brain, link = link.id, "a link is up");
    *links.0.info.write() = Arc::new(welcome.into());
    links.add(Arc::clone(&link));
    let outcome = serve(&link, &mut inbound, links, end).await;
    links.remove(&link, LinkState::Lost);
    if outcome.is_err() {
        links.0.metrics.link_losses.inc();
    }
    outcome
}

type Greeted = (mpsc::Sender<GatewayFrame>, Streaming<BrainFrame>, proto::Welcome);

async fn greet(address: Address, settings: &LinkSettings) -> Result<Greeted, LinkError> {
    let channel = address.endpoint(settings.tls.as_ref(), settings.connect_timeout)?.connect().await?;
    let (sender, outgoing) = mpsc::channel(OUTGOING_FRAMES);
    let hello = proto::Hello { gateway_id: settings.gateway_id.clone(), link_version: LINK_VERSION };
    // There is room: the channel is new.
    drop(sender.try_send(frame(gateway_frame::Frame::Hello(hello))));
    let refused = |status| LinkError::Refused(Box::new(status));
    let mut inbound = LinkClient::new(channel)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .attach(ReceiverStream::new(outgoing))
        .await
        .map_err(refused)?
        .into_inner();
    match inbound.message().await.map_err(refused)?.and_then(|frame| frame.frame) {
        Some(Frame::Welcome(welcome)) if welcome.link_version == LINK_VERSION => Ok((sender, inbound, welcome)),
        Some(Frame::Welcome(welcome)) => {
            Err(LinkError::Version { brain: welcome.brain_id, theirs: welcome.link_version })
        }
        _ => Err(LinkError::Silent),
    }
}

async fn serve(
    link: &Arc<Link>,
    inbound: &mut Streaming<BrainFrame>,
    links: &Links,
    end: &CancellationToken,
) -> Result<(), LinkError> {
    loop {
        let frame = tokio::select! {
            biased;
            () = end.cancelled() => return Ok(()),
            () = left(link) => return Ok(()),
            frame = inbound.message() => frame.map_err(|status| LinkError::Lost(Box::new(status)))?,
        };
        match frame {
            Some(frame) => handle(frame, link, links),
            None if link.is(LinkState::Draining) => return Ok(()),
            None => return Err(LinkError::Lost(Box::new(tonic::Status::unavailable("the brain ended the stream")))),
        }
    }
}

/// Resolves when the brain drains and everybody has moved away.
async fn left(link: &Link) {
    loop {
        let unused = link.unused.notified();
        if link.is(LinkState::Draining) && link.users.load(Ordering::Acquire) == 0 {
            return;
        }
        unused.await;
    }
}

fn handle(frame: BrainFrame, link: &Arc<Link>, links: &Links) {
    match frame.frame {
        Some(Frame::Deliver(deliver)) => links.0.roster.deliver(link.id, deliver),
        Some(Frame::Reply(reply)) => links.0.roster.reply(link.id, reply),
        Some(Frame::Kick(kick)) => links.0.roster.kick(link.id, &kick),
        Some(Frame::Welcome(welcome)) => *links.0.info.write() = Arc::new(welcome.into()),
        Some(Frame::Drain(proto::Drain {})) => {
            tracing::info!(brain = %link.brain, link = link.id, "a brain drains; its connections move");
            links.remove(link, LinkState::Draining);
        }
        None => tracing::debug!(brain = %link.brain, "a frame of an unknown kind was passed over"),
    }
}

/// A frame that is not traced.
pub(super) fn frame(frame: gateway_frame::Frame) -> GatewayFrame {
    GatewayFrame { frame: Some(frame), traceparent: String::new() }
}

impl From<proto::Welcome> for BrainInfo {
    fn from(welcome: proto::Welcome) -> Self {
        Self {
            models: welcome.models,
            default_model: welcome.default_model_id,
            max_content_chars: welcome.max_content_chars,
            replay_entries: welcome.replay_entries,
        }
    }
}
