//! Every metric of the gateway; `docs/metrics.md` explains them. Label values come from closed enums, and every series
//! exists from the start with the value 0. All names begin with `chatbox_gateway_`.

use chatbox_link::LinkMetrics;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Declares a label enum with its values and the list of all of them.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The text of the value.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value,)* }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                self.as_str().encode(encoder)
            }
        }
    };
}

labels! {
    /// How a handshake ended.
    HandshakeOutcome {
        /// A WebSocket was opened.
        Accepted = "accepted",
        /// The gateway drains.
        Draining = "draining",
        /// The limit on connections is reached.
        Full = "full",
        /// Too many handshakes from this address.
        RateLimited = "rate_limited",
        /// The path is unknown.
        NotFound = "not_found",
        /// The method is not GET.
        Method = "method",
        /// The request is not a valid WebSocket handshake.
        NotWebSocket = "not_websocket",
        /// The origin of the page is not allowed.
        Origin = "origin",
        /// A parameter of the URL is invalid.
        Parameter = "parameter",
        /// The token is missing or invalid.
        Unauthorized = "unauthorized",
        /// The keys that check tokens are not available.
        NoKeys = "no_keys",
        /// No brain can be reached.
        NoBrain = "no_brain",
        /// The client left before the WebSocket was open.
        Abandoned = "abandoned",
    }
}

labels! {
    /// The close code of a connection.
    CloseLabel {
        /// 1000, or a close frame without a code.
        Normal = "1000",
        /// 1001.
        GoingAway = "1001",
        /// 1002.
        Protocol = "1002",
        /// 1003.
        Binary = "1003",
        /// 1006: no close frame, because the network failed.
        Abnormal = "1006",
        /// 1007.
        NotUtf8 = "1007",
        /// 1008.
        Policy = "1008",
        /// 1009.
        TooLarge = "1009",
        /// 1011.
        Internal = "1011",
        /// 1012.
        Restart = "1012",
        /// 1013.
        Overload = "1013",
        /// 4001.
        Token = "4001",
        /// 4002.
        Replaced = "4002",
        /// 4003.
        Disconnected = "4003",
        /// 4008.
        TooSlow = "4008",
        /// 4009.
        Heartbeat = "4009",
        /// Any other code.
        Other = "other",
    }
}

impl CloseLabel {
    /// The label of a close code.
    pub fn of(code: u16) -> Self {
        Self::ALL.iter().copied().find(|close| close.as_str().parse() == Ok(code)).unwrap_or(Self::Other)
    }
}

/// The labels of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HandshakeLabels {
    /// How it ended.
    pub outcome: HandshakeOutcome,
}

/// The labels of a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CloseLabels {
    /// The close code.
    pub code: CloseLabel,
}

/// The metrics of the gateway. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Open TCP connections, HTTP and WebSocket.
    pub sockets: Gauge,
    /// The limit on open TCP connections.
    pub sockets_max: Gauge,
    /// Failed `accept` calls.
    pub accept_errors: Counter,
    /// For how many seconds the JWKS document could not be read; 0 after a good read.
    pub jwks_stale: Gauge,
    /// Log lines about refusals that were not written.
    pub suppressed_log_lines: Counter,
    /// Open WebSocket connections.
    pub connections: Gauge,
    /// Handshakes by outcome. Counted by [`Metrics::handshake`].
    pub handshakes: Family<HandshakeLabels, Counter>,
    /// Closed connections by close code. Counted by [`Metrics::closed`].
    pub closes: Family<CloseLabels, Counter>,
    /// WebSocket text frames received.
    pub frames_in: Counter,
    /// WebSocket text frames sent.
    pub frames_out: Counter,
    /// Payload bytes of the text frames received.
    pub bytes_in: Counter,
    /// Payload bytes of the text frames sent.
    pub bytes_out: Counter,
    /// Text frames outside the contract.
    pub invalid_frames: Counter,
    /// Requests rejected because their connection exceeded its rate.
    pub rate_limited: Counter,
    /// Connections closed because their send queue was full.
    pub slow_closes: Counter,
    /// Deltas merged into an earlier delta that was still waiting.
    pub merged_deltas: Counter,
    /// Requests without a reply.
    pub in_flight: Gauge,
    /// The Unix time in seconds at which the certificate of `link.tls` expires; 0 without one.
    pub certificate_expiry: Gauge,
    /// The metrics of the links to the brains.
    pub links: LinkMetrics,
}

impl Metrics {
    /// Registers all metrics in `registry`, which must have the prefix `chatbox_gateway`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_edge(registry);
        metrics.register_connections(registry);
        metrics.register_links(registry);
        metrics
    }

    /// Counts the end of a handshake.
    pub fn handshake(&self, outcome: HandshakeOutcome) {
        self.handshakes.get_or_create(&HandshakeLabels { outcome }).inc();
    }

    /// Counts the end of a connection.
    pub fn closed(&self, code: CloseLabel) {
        self.closes.get_or_create(&CloseLabels { code }).inc();
    }

    fn register_edge(&self, registry: &mut Registry) {
        registry.register("sockets", "Open TCP connections", self.sockets.clone());
        registry.register("sockets_max", "Limit on open TCP connections", self.sockets_max.clone());
        registry.register("accept_errors", "Failed accept calls", self.accept_errors.clone());
        registry.register(
            "suppressed_log_lines",
            "Log lines about refusals that were not written",
            self.suppressed_log_lines.clone(),
        );
        for outcome in HandshakeOutcome::ALL {
            let _zero = self.handshakes.get_or_create(&HandshakeLabels { outcome: *outcome });
        }
        registry.register("handshakes", "Handshakes by outcome", self.handshakes.clone());
        registry.register_with_unit(
            "jwks_stale",
            "Time for which the JWKS document could not be read",
            Unit::Seconds,
            self.jwks_stale.clone(),
        );
    }

    fn register_connections(&self, registry: &mut Registry) {
        registry.register("connections", "Open WebSocket connections", self.connections.clone());
        for code in CloseLabel::ALL {
            let _zero = self.closes.get_or_create(&CloseLabels { code: *code });
        }
        registry.register("closes", "Closed WebSocket connections by close code", self.closes.clone());

        registry.register("frames_received", "Text frames received", self.frames_in.clone());
        registry.register("frames_sent", "Text frames sent", self.frames_out.clone());
        registry.register_with_unit(
            "received",
            "Payload bytes of the text frames received",
            Unit::Bytes,
            self.bytes_in.clone(),
        );
        registry.register_with_unit(
            "sent",
            "Payload bytes of the text frames sent",
            Unit::Bytes,
            self.bytes_out.clone(),
        );
        registry.register("invalid_frames", "Text frames outside the contract", self.invalid_frames.clone());
        registry.register(
            "rate_limited",
            "Requests rejected because of a connection's rate",
            self.rate_limited.clone(),
        );
        registry.register(
            "slow_closes",
            "Connections closed because their send queue was full",
            self.slow_closes.clone(),
        );
        registry.register("merged_deltas", "Deltas merged into a waiting delta", self.merged_deltas.clone());
        registry.register("in_flight", "Requests without a reply", self.in_flight.clone());
    }

    fn register_links(&self, registry: &mut Registry) {
        let links = &self.links;
        registry.register_with_unit(
            "certificate_expiry",
            "Unix time at which the certificate of link.tls expires",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
        registry.register("links_up", "Links to brains that are ready", links.up.clone());
        registry.register("links_wanted", "Resolved addresses of brains", links.wanted.clone());
        registry.register("link_losses", "Links lost after they were ready", links.losses.clone());
        registry.register("reattached", "Connections moved to another link", links.reattached.clone());
        registry.register("resent_requests", "Requests sent again after a move", links.resent_requests.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_value_exists_from_the_start() {
        let mut registry = Registry::with_prefix("chatbox_gateway");
        let metrics = Metrics::new(&mut registry);
        metrics.closed(CloseLabel::of(4008));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encode");
        for line in [
            "chatbox_gateway_connections 0",
            "chatbox_gateway_handshakes_total{outcome=\"unauthorized\"} 0",
            "chatbox_gateway_closes_total{code=\"4008\"} 1",
            "chatbox_gateway_closes_total{code=\"other\"} 0",
            "chatbox_gateway_sent_bytes_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_close_code_has_its_label() {
        assert_eq!(CloseLabel::of(1012), CloseLabel::Restart);
        assert_eq!(CloseLabel::of(4711), CloseLabel::Other);
        assert_eq!(CloseLabel::of(0), CloseLabel::Other);
    }
}
