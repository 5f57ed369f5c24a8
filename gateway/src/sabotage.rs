//! Deliberate faults, for testing the tests: a test that stays green under one of them proves nothing. Only a build with
//! the feature `sabotage` has them, and only where `CHATBOX_SABOTAGE` names one. In every other build [`is_on`] is a
//! constant `false`, so the compiler removes the code behind it.

/// One deliberate fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// `no_gap_check`: a streaming answer that comes again after a lost link counts as received, whatever its text has
    /// gained meanwhile. The deltas that follow leave a gap.
    NoGapCheck,
}

/// Whether this fault is chosen.
#[cfg(feature = "sabotage")]
pub(crate) fn is_on(fault: Sabotage) -> bool {
    let name = match fault {
        Sabotage::NoGapCheck => "no_gap_check",
    };
    std::env::var("CHATBOX_SABOTAGE").is_ok_and(|chosen| chosen == name)
}

/// No fault exists in this build.
#[cfg(not(feature = "sabotage"))]
pub(crate) const fn is_on(_: Sabotage) -> bool {
    false
}
