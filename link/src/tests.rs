//! Links and uplinks against a fake brain, without any connection of a client.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::ids::UserId;
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_shared::proto::{self, client_message, gateway_frame};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::fake::{FakeBrain, FakeLink};
use super::*;
use crate::client::ConnectSettings;
use crate::supervisor::LinkSupervisor;

/// Reports the ready links to the test.
struct Recorder(mpsc::UnboundedSender<Vec<u64>>);

impl LinkEvents for Recorder {
    fn deliver(&self, _: u64, _: proto::Deliver) {}

    fn reply(&self, _: u64, _: proto::Reply) {}

    fn kick(&self, _: u64, _: proto::Kick) {}

    fn links_changed(&self, ready: &[u64]) {
        drop(self.0.send(ready.to_vec()));
    }
}

/// A connection with one open session and the request number 7 without a reply.
struct Source(UserId);

impl UplinkSource for Source {
    fn conn(&self) -> u64 {
        3
    }

    fn user(&self) -> &UserId {
        &self.0
    }

    fn principal(&self) -> proto::Principal {
        proto::Principal { user_id: self.0.as_str().to_owned(), ..Default::default() }
    }

    fn open(&self, resume: Vec<proto::Resume>) -> proto::Open {
        proto::Open { conn: 3, resume, ..Default::default() }
    }

    fn request(&self, no: u32) -> Option<proto::ClientMessage> {
        let list = client_message::Message::SessionList(proto::SessionList::default());
        (no == 7).then_some(proto::ClientMessage { message: Some(list) })
    }

    fn rebind(&self, _: u64) -> Rebound {
        let resume = vec![proto::Resume { session_id: "s".into(), after_seq: 5, ..Default::default() }];
        Rebound { resume, unanswered: vec![7] }
    }

    fn unbind(&self) {}
}

struct Process {
    brain: FakeBrain,
    links: Links,
    metrics: LinkMetrics,
    changes: mpsc::UnboundedReceiver<Vec<u64>>,
    unused: oneshot::Sender<()>,
}

impl Process {
    async fn start() -> (Self, FakeLink) {
        let lifecycle = Lifecycle::new();
        let mut brain = FakeBrain::start("brain-a", &lifecycle).await;
        let settings = LinkSettings {
            name: "gateway-1".into(),
            endpoints: vec![format!("http://{}", brain.address).parse().expect("endpoint")],
            resolve_interval: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(3),
            tls: None,
        };
        let (sender, changes) = mpsc::unbounded_channel();
        let (unused, wait) = oneshot::channel();
        let metrics = LinkMetrics::default();
        let unused_future = async move { drop(wait.await) };
        let links = start(settings, Arc::new(Recorder(sender)), metrics.clone(), &lifecycle, unused_future);
        let link = brain.link().await;
        let mut process = Self { brain, links, metrics, changes, unused };
        assert_eq!(process.change().await, [1]);
        (process, link)
    }

    async fn change(&mut self) -> Vec<u64> {
        tokio::time::timeout(Duration::from_secs(10), self.changes.recv())
            .await
            .expect("a change in time")
            .expect("one")
    }
}

#[tokio::test]
async fn a_lost_link_is_replaced_and_its_uplinks_resume() {
    let (mut process, mut link) = Process::start().await;
    let (source, mut uplink) = (Source(UserId::new("u1")), Uplink::default());
    assert!(uplink.attach(&process.links, &source));
    uplink.send(&source);
    assert_eq!(link.open().await.conn, 3);
    assert_eq!(link.request().await.request_no, 7);
    assert!(!uplink.attach(&process.links, &source), "the link in use is ready");

    drop(link);
    assert_eq!(process.change().await, [] as [u64; 0]);
    assert!(uplink.attach(&process.links, &source) && uplink.is_detached());
    let mut link = process.brain.link().await;
    assert_eq!(process.change().await, [2]);
    assert!(uplink.attach(&process.links, &source));
    uplink.push(UplinkMessage::Request(8));
    uplink.push(UplinkMessage::Receipt(9));
    uplink.send(&source);
    assert_eq!(link.open().await.resume[0].after_seq, 5);
    assert_eq!(link.request().await.request_no, 7);
    match link.next().await {
        gateway_frame::Frame::Receipt(receipt) => assert_eq!(receipt.receipt, 9, "request 8 was answered"),
        other => panic!("{other:?}"),
    }
    assert_eq!((process.metrics.losses.get(), process.metrics.reattached.get()), (1, 1));
    uplink.end(3).await;
    assert!(matches!(link.next().await, gateway_frame::Frame::Close(proto::Close { conn: 3 })));
}

#[tokio::test]
async fn a_link_to_an_unlisted_address_drains_and_ends_with_its_last_uplink() {
    let lifecycle = Lifecycle::new();
    let mut brain = FakeBrain::start("brain-a", &lifecycle).await;
    let (sender, mut changes) = mpsc::unbounded_channel();
    let links = Links::new(Arc::new(Recorder(sender)), LinkMetrics::default());
    let unlisted = CancellationToken::new();
    let endpoint: BrainEndpoint = format!("http://{}", brain.address).parse().expect("endpoint");
    let supervisor = LinkSupervisor {
        address: endpoint.resolve().await.expect("address")[0],
        settings: ConnectSettings { name: "gateway-1".into(), timeout: Duration::from_secs(3), tls: None },
        links: links.clone(),
        unlisted: unlisted.clone(),
        end: CancellationToken::new(),
    };
    lifecycle.spawn(supervisor.run());
    let mut link = brain.link().await;
    assert_eq!(changes.recv().await.as_deref(), Some(&[1_u64][..]));
    let (source, mut uplink) = (Source(UserId::new("u1")), Uplink::default());
    uplink.attach(&links, &source);
    uplink.send(&source);
    link.open().await;
    link.request().await;
    unlisted.cancel();
    assert_eq!(changes.recv().await.as_deref(), Some(&[][..]), "no new connection uses the link");
    uplink.leave(3);
    assert!(matches!(link.next().await, gateway_frame::Frame::Close(_)));
    link.ended().await;
}

#[tokio::test]
async fn a_draining_link_ends_with_its_last_uplink_and_all_links_end_unused() {
    let (mut process, mut link) = Process::start().await;
    let (source, mut uplink) = (Source(UserId::new("u1")), Uplink::default());
    uplink.attach(&process.links, &source);
    uplink.send(&source);
    link.open().await;
    link.request().await;
    link.send(proto::brain_frame::Frame::Drain(proto::Drain {})).await;
    assert_eq!(process.change().await, [] as [u64; 0]);
    assert!(!uplink.attach(&process.links, &source), "without another brain the connection stays");
    uplink.leave(3);
    assert!(matches!(link.next().await, gateway_frame::Frame::Close(_)));
    link.ended().await;

    let mut link = process.brain.link().await;
    process.unused.send(()).expect("the links wait for it");
    link.ended().await;
}
