//! What was written to a socket and is not flushed yet.

/// The state of the writing side of a connection.
#[derive(Debug, Default)]
pub(super) struct WriteState {
    /// Bytes were written since the last flush.
    pub(super) unflushed: bool,
    /// The socket does not accept the bytes that wait for it.
    blocked: bool,
    /// The writing side of a broken connection was shut down.
    pub(super) shut: bool,
    /// The receipts to send after the next flush.
    receipts: Vec<u64>,
    frames: u32,
}

impl WriteState {
    /// Counts a text frame.
    pub(super) fn count_frame(&mut self) {
        self.frames = self.frames.saturating_add(1);
    }

    /// The number of text frames sent.
    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    /// Whether the socket does not accept the bytes that wait for it.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Sets whether the socket is blocked. Returns whether it has just become blocked.
    pub(super) fn set_blocked(&mut self, blocked: bool) -> bool {
        let before = std::mem::replace(&mut self.blocked, blocked);
        blocked && !before
    }

    /// Remembers a receipt to send after the next flush.
    pub(super) fn add_receipt(&mut self, receipt: u64) {
        self.receipts.push(receipt);
    }

    /// Takes the receipts that are due after a flush.
    pub(super) fn take_receipts(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.receipts)
    }
}
