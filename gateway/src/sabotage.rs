//! Deliberate faults, for testing the tests: a test that stays green under one of them proves nothing. Only a build with
//! the feature `sabotage` has them, and only where `CHATBOX_SABOTAGE` names one. In every other build the functions here
//! are constant, so the compiler removes the code behind them.

/// `no_gap_check`: a streaming answer that comes again after a lost link counts as received, whatever its text has gained
/// meanwhile. The deltas that follow leave a gap.
#[cfg(feature = "sabotage")]
pub(crate) fn no_gap_check() -> bool {
    std::env::var("CHATBOX_SABOTAGE").is_ok_and(|chosen| chosen == "no_gap_check")
}

/// No fault exists in this build.
#[cfg(not(feature = "sabotage"))]
pub(crate) const fn no_gap_check() -> bool {
    false
}
