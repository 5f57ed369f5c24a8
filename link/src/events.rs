//! What the links report to the process that holds the connections.

use chatbox_shared::proto;

/// The receiver of everything that brains send. Implemented by the registry of connections.
///
/// Every method must return quickly: one link carries thousands of connections, and a slow call delays all of them.
/// `link` is the id of the reporting link. A connection that has moved to another link must ignore the frames of its
/// earlier link.
pub trait LinkEvents: Send + Sync + 'static {
    /// An event for one or many connections.
    fn deliver(&self, link: u64, deliver: proto::Deliver);

    /// The reply to a request of one connection.
    fn reply(&self, link: u64, reply: proto::Reply);

    /// The brain wants a connection closed.
    fn kick(&self, link: u64, kick: proto::Kick);

    /// A link became ready, drains, or was lost. `ready` holds the ids of the links that new connections may use; the
    /// connections of any other link must call `Uplink::attach` soon.
    fn links_changed(&self, ready: &[u64]);
}
