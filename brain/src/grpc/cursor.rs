//! The text of a cursor: opaque to clients, base64url of the last activity and the id of a session.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::Failure;

use crate::store::SessionCursor;

/// The cursor of the page after this session; empty for `None`.
pub(super) fn write(cursor: Option<SessionCursor>) -> String {
    cursor.map(|at| URL_SAFE_NO_PAD.encode(format!("{}.{}", at.last_at.0, at.id))).unwrap_or_default()
}

/// The session before the page; `None` for an empty text.
///
/// # Errors
/// `invalid_message` if [`write()`] did not write this text.
pub(super) fn read(text: &str) -> Result<Option<SessionCursor>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (last_at, id) = text.split_once('.')?;
        Some(SessionCursor { last_at: Timestamp(last_at.parse().ok()?), id: id.parse().ok()? })
    };
    parsed().map(Some).ok_or_else(|| Failure::invalid("cursor", "This field must be a cursor from an earlier list."))
}

#[cfg(test)]
mod tests {
    use chatbox_shared::ids::SessionId;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_reads_back_and_anything_else_is_refused() {
        let cursor = Some(SessionCursor { last_at: Timestamp(17), id: SessionId::generate() });
        assert_eq!(read(&write(cursor)), Ok(cursor));
        assert_eq!(read(&write(None)), Ok(None));
        for bad in ["x", "MTc", "%%%", &URL_SAFE_NO_PAD.encode("17.nope")] {
            assert_eq!(read(bad).unwrap_err().field.as_deref(), Some("cursor"), "{bad}");
        }
    }

    proptest! {
        /// Whatever a client sends as a cursor is read or refused, without a panic.
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), inner in "[0-9.-]{0,24}[0-9a-f.-]{0,40}") {
            drop(read(&text));
            drop(read(&URL_SAFE_NO_PAD.encode(inner)));
        }

        #[test]
        fn any_time_reads_back(last_at in any::<i64>()) {
            let cursor = Some(SessionCursor { last_at: Timestamp(last_at), id: SessionId::generate() });
            prop_assert_eq!(read(&write(cursor)), Ok(cursor));
        }
    }
}
