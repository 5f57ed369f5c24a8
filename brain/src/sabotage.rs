//! Deliberate faults, for testing the tests: a test that stays green under one of them proves nothing. Only a build with
//! the feature `sabotage` has them, and only where `CHATBOX_SABOTAGE` names one. In every other build [`is_on`] is a
//! constant `false`, so the compiler removes the code behind it.

/// One deliberate fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// `no_fence_check`: an answer's row is replaced whoever owns it.
    NoFenceCheck,
    /// `ack_before_write`: an entry counts as stored before the store has it.
    AckBeforeWrite,
    /// `w1`: MongoDB acknowledges a write before a majority has it.
    W1,
}

/// Whether this fault is chosen.
#[cfg(feature = "sabotage")]
pub(crate) fn is_on(fault: Sabotage) -> bool {
    let name = match fault {
        Sabotage::NoFenceCheck => "no_fence_check",
        Sabotage::AckBeforeWrite => "ack_before_write",
        Sabotage::W1 => "w1",
    };
    std::env::var("CHATBOX_SABOTAGE").is_ok_and(|chosen| chosen == name)
}

/// No fault exists in this build.
#[cfg(not(feature = "sabotage"))]
pub(crate) const fn is_on(_: Sabotage) -> bool {
    false
}

/// Runs a write in a task of its own, a moment later. A write that fails is lost.
#[cfg(feature = "sabotage")]
pub(crate) fn later(write: impl Future<Output = ()> + Send + 'static) {
    #[expect(clippy::disallowed_methods, reason = "the fault is a write that nobody waits for")]
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        write.await;
    });
}

/// No fault exists in this build, so no write is delayed.
#[cfg(not(feature = "sabotage"))]
pub(crate) fn later(_: impl Future<Output = ()> + Send + 'static) {}
