//! `[limits]`: sizes, rates and time limits of clients.

use std::time::Duration;

use chatbox_shared::config::{ConfigErrors, within};
use serde::Deserialize;

use crate::listener::HttpLimits;

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSection {
    /// WebSocket connections at the same time. 0: as many as the limit on open files allows.
    pub max_connections: usize,
    /// Handshakes of one address per minute.
    pub handshakes_per_minute: u32,
    /// Handshakes of one address at once.
    pub handshake_burst: u32,
    /// Largest frame and largest message of a client, in bytes.
    pub max_frame_bytes: usize,
    /// Invalid frames of one connection per minute.
    pub max_invalid_frames: u32,
    /// Requests of one connection per second.
    pub requests_per_second: u32,
    /// Requests of one connection at once.
    pub request_burst: u32,
    /// Requests of one connection without a reply.
    pub max_in_flight: usize,
    /// Bytes of events that may wait for one socket.
    pub outbound_queue_bytes: usize,
    /// The time limit for the head of an HTTP request, in milliseconds.
    pub header_timeout_ms: u64,
    /// The time limit from the accepted socket to the open WebSocket, in milliseconds.
    pub http_timeout_ms: u64,
    /// Sockets of one address that are not WebSockets yet.
    pub http_sockets_per_address: usize,
    /// Largest head of an HTTP request, in bytes.
    pub max_header_bytes: usize,
    /// Largest number of headers of an HTTP request.
    pub max_headers: usize,
}

impl LimitsSection {
    pub(super) fn validate(&self, errors: &mut ConfigErrors) {
        within(errors, "limits.max_connections", self.max_connections, 0, 1_000_000);
        within(errors, "limits.handshakes_per_minute", self.handshakes_per_minute, 1, 10_000_000);
        within(errors, "limits.handshake_burst", self.handshake_burst, 1, 1_000_000);
        within(errors, "limits.max_frame_bytes", self.max_frame_bytes, 1024, 16 << 20);
        within(errors, "limits.max_invalid_frames", self.max_invalid_frames, 1, 10_000);
        within(errors, "limits.requests_per_second", self.requests_per_second, 1, 100_000);
        within(errors, "limits.request_burst", self.request_burst, 1, 100_000);
        within(errors, "limits.max_in_flight", self.max_in_flight, 1, 4096);
        within(errors, "limits.outbound_queue_bytes", self.outbound_queue_bytes, 16 << 10, 256 << 20);
        within(errors, "limits.header_timeout_ms", self.header_timeout_ms, 100, 60_000);
        within(errors, "limits.http_timeout_ms", self.http_timeout_ms, 100, 300_000);
        within(errors, "limits.http_sockets_per_address", self.http_sockets_per_address, 1, 1_000_000);
        // hyper reads in buffers of at least 8 KiB.
        within(errors, "limits.max_header_bytes", self.max_header_bytes, 8192, 1 << 20);
        within(errors, "limits.max_headers", self.max_headers, 10, 1000);
    }

    /// The limits of HTTP requests.
    pub(crate) fn http(&self) -> HttpLimits {
        HttpLimits {
            header_timeout: Duration::from_millis(self.header_timeout_ms),
            http_timeout: Duration::from_millis(self.http_timeout_ms),
            max_header_bytes: self.max_header_bytes,
            max_headers: self.max_headers,
        }
    }
}
