//! How many connections this process can hold: what is configured, and no more than the limit on open files allows.

use std::io;

/// Files the process needs besides sockets of clients: links, operations port, log, certificates, the runtime's own.
const RESERVED_FILES: usize = 128;
/// Sockets beyond the WebSocket connections, for requests that are about to be answered.
const SPARE_SOCKETS: usize = 256;
/// Where the limit on open files is no limit.
const MOST: usize = 1_000_000;

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// WebSocket connections at once.
    pub connections: usize,
    /// Sockets of clients at once, those that are still speaking HTTP included.
    pub sockets: usize,
    /// The limit on open files it was derived from.
    pub open_files: usize,
}

impl Capacity {
    /// Raises the limit on open files as far as it goes and derives the rest; `configured` 0 means as many as possible.
    ///
    /// # Errors
    /// Where the system does not tell the limit.
    pub fn determine(configured: usize) -> io::Result<Self> {
        let open_files = usize::try_from(rlimit::increase_nofile_limit(u64::MAX)?).unwrap_or(usize::MAX);
        Ok(Self::derive(configured, open_files))
    }

    fn derive(configured: usize, open_files: usize) -> Self {
        // With a very low limit at least half of it serves clients.
        let reserved = (RESERVED_FILES + SPARE_SOCKETS).min(open_files / 2);
        let possible = (open_files - reserved).clamp(1, MOST);
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
            (0, usize::MAX, MOST, MOST + SPARE_SOCKETS),
        ] {
            let expected = Capacity { connections, sockets, open_files };
            assert_eq!(Capacity::derive(configured, open_files), expected);
        }
    }
}
