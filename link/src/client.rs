//! One link from its connection to its end: the greeting, then frames in both directions. Incoming frames go to
//! `LinkEvents` at once; nothing here waits for a single connection.

use std::time::Duration;

use chatbox_shared::proto::brain_frame::Frame;
use chatbox_shared::proto::gateway_frame;
use chatbox_shared::proto::link_client::LinkClient;
use chatbox_shared::proto::{self, BrainFrame, GatewayFrame, LINK_VERSION};
use chatbox_shared::tls::LiveTls;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::ClientTlsConfig;

use crate::endpoint::Address;
use crate::link::{Link, LinkState, untraced};
use crate::links::Links;

/// Outgoing frames that may wait for the stream, of all connections together.
const OUTGOING_FRAMES: usize = 256;
/// Largest frame that a brain may send: a page of entries.
const MAX_FRAME_BYTES: usize = 16 << 20;

/// How to connect to a brain.
#[derive(Debug, Clone)]
pub(crate) struct ConnectSettings {
    /// The name of this process, sent in the greeting.
    pub(crate) name: String,
    /// The time limit of connecting, and again of the greeting.
    pub(crate) timeout: Duration,
    /// TLS for `https://` endpoints.
    pub(crate) tls: Option<LiveTls<ClientTlsConfig>>,
}

/// Why a link is not up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// No connection, or no agreement on TLS or HTTP/2.
    #[error("cannot connect: {0:?}")]
    Connect(#[from] tonic::transport::Error),
    /// The time limit of the greeting has passed.
    #[error("no greeting within {0:?}")]
    Timeout(Duration),
    /// The brain rejected the stream.
    #[error("rejected: {}", .0.message())]
    Rejected(Box<tonic::Status>),
    /// The first frame was not a `Welcome`.
    #[error("the first frame of the brain was not a welcome")]
    NoWelcome,
    /// The brain uses another version of the link protocol.
    #[error("brain {brain} uses link version {version}, this process uses version {LINK_VERSION}")]
    Version {
        /// The brain's name.
        brain: String,
        /// The brain's version.
        version: u32,
    },
    /// The link was ready and broke.
    #[error("{}", .0.message())]
    Lost(Box<tonic::Status>),
}

/// Connects, and serves the link until it ends. `Ok` if the link drained or `end` was cancelled. The link drains when the
/// brain asks for it, or when `unlisted` is cancelled.
pub(crate) async fn run(
    address: Address,
    settings: &ConnectSettings,
    links: &Links,
    unlisted: &CancellationToken,
    end: &CancellationToken,
) -> Result<(), LinkError> {
    let limit = settings.timeout * 2;
    let greeting = Box::pin(greet(address, settings));
    let (sender, mut incoming, welcome) =
        tokio::time::timeout(limit, greeting).await.map_err(|_| LinkError::Timeout(limit))??;
    let link = links.add(welcome, sender);
    tracing::info!(%address, brain = %link.brain, link = link.id, "link is ready");
    let outcome = serve(&link, &mut incoming, links, unlisted, end).await;
    links.remove(&link, LinkState::Lost);
    if outcome.is_err() {
        links.metrics().losses.inc();
    }
    outcome
}

type Greeted = (mpsc::Sender<GatewayFrame>, Streaming<BrainFrame>, proto::Welcome);

async fn greet(address: Address, settings: &ConnectSettings) -> Result<Greeted, LinkError> {
    let tls = settings.tls.as_ref().map(LiveTls::current);
    let channel = address.endpoint(tls.as_deref(), settings.timeout)?.connect().await?;
    let (sender, outgoing) = mpsc::channel(OUTGOING_FRAMES);
    let hello = proto::Hello { gateway_id: settings.name.clone(), link_version: LINK_VERSION };
    // The channel is new, so there is room.
    drop(sender.try_send(untraced(gateway_frame::Frame::Hello(hello))));
    let rejected = |status| LinkError::Rejected(Box::new(status));
    let mut incoming = LinkClient::new(channel)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .attach(ReceiverStream::new(outgoing))
        .await
        .map_err(rejected)?
        .into_inner();
    match incoming.message().await.map_err(rejected)?.and_then(|frame| frame.frame) {
        Some(Frame::Welcome(welcome)) if welcome.link_version == LINK_VERSION => Ok((sender, incoming, welcome)),
        Some(Frame::Welcome(welcome)) => {
            Err(LinkError::Version { brain: welcome.brain_id, version: welcome.link_version })
        }
        _ => Err(LinkError::NoWelcome),
    }
}

async fn serve(
    link: &Link,
    incoming: &mut Streaming<BrainFrame>,
    links: &Links,
    unlisted: &CancellationToken,
    end: &CancellationToken,
) -> Result<(), LinkError> {
    loop {
        let frame = tokio::select! {
            biased;
            () = end.cancelled() => return Ok(()),
            () = link.drained() => return Ok(()),
            () = unlisted.cancelled(), if link.is(LinkState::Ready) => {
                tracing::info!(brain = %link.brain, link = link.id, "address is no longer listed; its link drains");
                links.remove(link, LinkState::Draining);
                continue;
            }
            frame = incoming.message() => frame.map_err(|status| LinkError::Lost(Box::new(status)))?,
        };
        match frame {
            Some(frame) => handle(frame, link, links),
            None if link.is(LinkState::Draining) => return Ok(()),
            None => return Err(LinkError::Lost(Box::new(tonic::Status::unavailable("the brain ended the stream")))),
        }
    }
}

fn handle(frame: BrainFrame, link: &Link, links: &Links) {
    match frame.frame {
        Some(Frame::Deliver(deliver)) => links.events().deliver(link.id, deliver),
        Some(Frame::Reply(reply)) => links.events().reply(link.id, reply),
        Some(Frame::Kick(kick)) => links.events().kick(link.id, kick),
        Some(Frame::Welcome(welcome)) => links.update_info(welcome),
        Some(Frame::Drain(proto::Drain {})) => {
            tracing::info!(brain = %link.brain, link = link.id, "brain drains; its connections move to other brains");
            links.remove(link, LinkState::Draining);
        }
        None => tracing::debug!(brain = %link.brain, "ignored a frame of an unknown type"),
    }
}
