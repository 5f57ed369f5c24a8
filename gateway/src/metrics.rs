//! Every metric of the gateway. Label values come from closed enums and exist from the start, at zero.
//! All names begin with `chatbox_gateway_`.

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
            /// Every value there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The value as it is shown.
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
    Handshake {
        /// A WebSocket was opened.
        Accepted = "accepted",
        /// Draining.
        Draining = "draining",
        /// As many connections as there may be.
        Full = "full",
        /// Too many from this address.
        RateLimited = "rate_limited",
        /// Not a WebSocket handshake.
        NotWebSocket = "not_websocket",
        /// The page's origin is not on the list.
        Origin = "origin",
        /// A parameter in the URL is not as it must be.
        Parameter = "parameter",
        /// No valid token.
        Unauthorized = "unauthorized",
        /// No brain can be reached.
        NoBrain = "no_brain",
        /// The client went away before the WebSocket was open.
        Abandoned = "abandoned",
    }
}

labels! {
    /// Why a connection was closed, by its close code.
    Close {
        /// 1000, or the client went without saying so.
        Normal = "1000",
        /// 1001.
        GoingAway = "1001",
        /// 1002.
        Protocol = "1002",
        /// 1003.
        Binary = "1003",
        /// No close frame: the network failed.
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
        /// Any other code a client chose.
        Other = "other",
    }
}

impl Close {
    /// The label of a close code.
    pub fn of(code: u16) -> Self {
        Self::ALL.iter().copied().find(|close| close.as_str().parse() == Ok(code)).unwrap_or(Self::Other)
    }
}

/// The label set of a handshake's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HandshakeLabels {
    /// How it ended.
    pub outcome: Handshake,
}

/// The label set of a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CloseLabels {
    /// The close code.
    pub code: Close,
}

/// The gateway's metrics. Cloning is cheap; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// TCP connections accepted and not yet closed, whatever they speak.
    pub sockets: Gauge,
    /// TCP connections there may be at once.
    pub sockets_max: Gauge,
    /// Failed `accept` calls.
    pub accept_errors: Counter,
    /// Open WebSocket connections.
    pub connections: Gauge,
    /// Use [`Metrics::handshake`].
    pub handshakes: Family<HandshakeLabels, Counter>,
    /// Use [`Metrics::closed`].
    pub closes: Family<CloseLabels, Counter>,
    /// WebSocket text frames received.
    pub frames_in: Counter,
    /// WebSocket text frames sent.
    pub frames_out: Counter,
    /// Payload bytes of the text frames received.
    pub bytes_in: Counter,
    /// Payload bytes of the text frames sent.
    pub bytes_out: Counter,
    /// Frames that were not valid requests.
    pub invalid_frames: Counter,
    /// Requests refused because one connection sent too many.
    pub rate_limited: Counter,
    /// Connections closed because their outbound queue was full.
    pub slow_closes: Counter,
    /// Deltas merged into an earlier one that was still waiting.
    pub merged_deltas: Counter,
    /// Requests the brains have not answered yet.
    pub in_flight: Gauge,
    /// Links to brains that are up.
    pub links_up: Gauge,
    /// Brains that are configured and resolved.
    pub links_wanted: Gauge,
    /// Links lost after they were up.
    pub link_losses: Counter,
    /// Connections moved to a brain again after a link was lost or a brain drained.
    pub reattached: Counter,
    /// Requests sent again after that.
    pub resent_requests: Counter,
}

impl Metrics {
    /// Registers everything; `registry` should carry the prefix `chatbox_gateway`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_edge(registry);
        metrics.register_connections(registry);
        metrics.register_links(registry);
        metrics
    }

    /// Counts the end of a handshake.
    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes.get_or_create(&HandshakeLabels { outcome }).inc();
    }

    /// Counts the end of a connection.
    pub fn closed(&self, code: Close) {
        self.closes.get_or_create(&CloseLabels { code }).inc();
    }

    fn register_edge(&self, registry: &mut Registry) {
        registry.register("sockets", "TCP connections open", self.sockets.clone());
        registry.register("sockets_max", "TCP connections there may be", self.sockets_max.clone());
        registry.register("accept_errors", "Failed accept calls", self.accept_errors.clone());
        for outcome in Handshake::ALL {
            let _zero = self.handshakes.get_or_create(&HandshakeLabels { outcome: *outcome });
        }
        registry.register("handshakes", "Handshakes by their end", self.handshakes.clone());
    }

    fn register_connections(&self, registry: &mut Registry) {
        registry.register("connections", "WebSocket connections open", self.connections.clone());
        for code in Close::ALL {
            let _zero = self.closes.get_or_create(&CloseLabels { code: *code });
        }
        registry.register("closes", "Closed WebSocket connections by close code", self.closes.clone());

        registry.register("frames_received", "Text frames received", self.frames_in.clone());
        registry.register("frames_sent", "Text frames sent", self.frames_out.clone());
        registry.register_with_unit("received", "Payload of text frames received", Unit::Bytes, self.bytes_in.clone());
        registry.register_with_unit("sent", "Payload of text frames sent", Unit::Bytes, self.bytes_out.clone());
        registry.register("invalid_frames", "Frames that were no valid request", self.invalid_frames.clone());
        registry.register("rate_limited", "Requests over a connection's rate", self.rate_limited.clone());
        registry.register("slow_closes", "Connections closed because they did not read", self.slow_closes.clone());
        registry.register("merged_deltas", "Deltas merged under pressure", self.merged_deltas.clone());
        registry.register("in_flight", "Requests without a reply", self.in_flight.clone());
    }

    fn register_links(&self, registry: &mut Registry) {
        registry.register("links_up", "Links to brains that are up", self.links_up.clone());
        registry.register("links_wanted", "Brains configured and resolved", self.links_wanted.clone());
        registry.register("link_losses", "Links lost", self.link_losses.clone());
        registry.register("reattached", "Connections moved to a brain again", self.reattached.clone());
        registry.register("resent_requests", "Requests sent again after a link was lost", self.resent_requests.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_value_is_there_from_the_start() {
        let mut registry = Registry::with_prefix("chatbox_gateway");
        let metrics = Metrics::new(&mut registry);
        metrics.closed(Close::of(4008));
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
        assert_eq!(Close::of(1012), Close::Restart);
        assert_eq!(Close::of(4711), Close::Other);
        assert_eq!(Close::of(0), Close::Other);
    }
}
