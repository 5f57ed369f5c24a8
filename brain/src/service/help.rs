//! Requesting a human.

use chatbox_shared::auth::Principal;
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::SessionId;

use super::access;
use super::context::Context;
use super::writing::append_event;
use crate::log::entry::LogEvent;
use crate::log::state::Intent;

/// Requests a human for the principal's own session. The reason may be empty.
///
/// # Errors
/// `too_large` if the reason is too long, `not_found` if there is no such session.
pub async fn request(cx: &Context, by: &Principal, id: SessionId, reason: String) -> Result<(), Failure> {
    check_reason(&reason, cx.tunables().limits.max_reason_chars)?;
    let session = access::own(cx, by, id).await?;
    let event = LogEvent::HelpRequested { has_reason: !reason.is_empty() };
    append_event(cx, &session, Intent::Help, event, reason).await
}

fn check_reason(reason: &str, max: usize) -> Result<(), Failure> {
    if reason.chars().count() > max {
        return Err(Failure::too_large("reason", format!("The reason may have at most {max} characters.")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chatbox_shared::failure::ErrorCode;

    use super::*;

    #[test]
    fn a_reason_is_bounded_in_characters_and_not_in_bytes() {
        assert_eq!(check_reason("", 3), Ok(()));
        assert_eq!(check_reason("鳥鳥鳥", 3), Ok(()));
        let failure = check_reason("four", 3).unwrap_err();
        assert_eq!((failure.code, failure.field.as_deref()), (ErrorCode::TooLarge, Some("reason")));
    }
}
