//! What the links count. The service that uses the links registers the metrics under its own names.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// The metrics of all links of a process. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct LinkMetrics {
    /// Links that are ready.
    pub up: Gauge,
    /// Addresses of brains that are configured and resolved.
    pub wanted: Gauge,
    /// Links lost after they were ready.
    pub losses: Counter,
    /// Connections that moved to a link after their first one.
    pub reattached: Counter,
    /// Requests sent again because of such a move.
    pub resent_requests: Counter,
}
