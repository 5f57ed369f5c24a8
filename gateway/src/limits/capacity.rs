//! How many connections this process can hold: the configured number, but not more than the limit on open files
//! allows.

use std::io;

/// Open files besides the sockets of clients: links, operations port, log, certificates, the runtime.
const RESERVED_FILES: usize = 128;
/// Sockets besides the WebSocket connections, for HTTP requests.
const SPARE_SOCKETS: usize = 256;
/// Largest number of connections, even if the number of open files is unlimited.
const MAX_CONNECTIONS: usize = 1_000_000;

/// The numbers derived from the limit on open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// WebSocket connections at the same time.
    pub connections: usize,
    /// Sockets of clients at the same time, including those that still use HTTP.
    pub sockets: usize,
    /// The limit on open files.
    pub open_files: usize,
}

impl Capacity {
    /// Sockets of clients in the HTTP phase at the same time.
    pub fn http_sockets(&self) -> usize {
        self.sockets - self.connections
    }

    /// Raises the limit on open files to its maximum and derives the numbers. `configured` 0: as many as possible.
    ///
    /// # Errors
    /// If the system does not report the limit.
    pub fn determine(configured: usize) -> io::Result<Self> {
        let open_files = usize::try_from(rlimit::increase_nofile_limit(u64::MAX)?).unwrap_or(usize::MAX);
        Ok(Self::derive(configured, open_files))
    }

    fn derive(configured: usize, open_files: usize) -> Self {
        // At least half of a very low limit is for clients.
        let reserved = (RESERVED_FILES + SPARE_SOCKETS).min(open_files / 2);
        let possible = (open_files - reserved).clamp(1, MAX_CONNECTIONS);
        let connections = if configured == 0 { possible } else { configured.min(possible) };
        let spare = reserved * SPARE_SOCKETS / (RESERVED_FILES + SPARE_SOCKETS);
        Self { connections, sockets: connections + spare, open_files }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_open_files() {
        for (configured, open_files, connections, sockets) in [
            (0, 20_000, 19_616, 19_872),
            (10_000, 20_000, 10_000, 10_256),
            (50_000, 20_000, 19_616, 19_872),
            (0, 1024, 640, 896),
            (0, 256, 128, 213),
            (0, 0, 1, 1),
            (0, usize::MAX, MAX_CONNECTIONS, MAX_CONNECTIONS + SPARE_SOCKETS),
        ] {
            let expected = Capacity { connections, sockets, open_files };
            assert_eq!(Capacity::derive(configured, open_files), expected);
        }
    }
}
