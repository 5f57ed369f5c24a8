//! The name of a session: encrypted in the store, made from the first message, changed by the owner or by a model.

use std::sync::Arc;

use chatbox_shared::failure::Failure;
use chatbox_shared::ids::SessionId;

use super::failures;
use super::handle::Session;
use crate::store::cipher::SessionKey;
use crate::store::{SessionRow, Store};

/// Characters of a name that is made from a message.
const MAX_CHARS: usize = 60;

/// The name in plain text; empty if there is none, or if it does not decrypt.
pub(super) fn open(row: &SessionRow, key: &SessionKey) -> String {
    if row.name.is_empty() {
        return String::new();
    }
    key.open_name(row.id, &row.name).unwrap_or_else(|error| {
        tracing::error!(session = %row.id, %error, "the stored name cannot be read");
        String::new()
    })
}

/// The encrypted name.
pub(super) fn seal(id: SessionId, key: &SessionKey, name: &str) -> Result<Vec<u8>, Failure> {
    key.seal_name(id, name).map_err(|error| failures::internal(id, &error))
}

/// Renames the session.
///
/// # Errors
/// If the store cannot be reached.
pub(crate) async fn rename(store: &dyn Store, session: &Arc<Session>, name: &str) -> Result<(), Failure> {
    let sealed = seal(session.id, session.key(), name)?;
    let renamed = store.rename_session(session.id, &sealed).await;
    if renamed.map_err(|error| failures::storage(session.id, &error))? {
        set(session, name);
    }
    Ok(())
}

/// Renames the session if its name is still `from`: a name that a human has given meanwhile stays.
///
/// # Errors
/// If the store cannot be reached.
pub(crate) async fn rename_from(
    store: &dyn Store,
    session: &Arc<Session>,
    from: &str,
    to: &str,
) -> Result<(), Failure> {
    let row = store.session(session.id).await.map_err(|error| failures::storage(session.id, &error))?;
    let Some(row) = row.filter(|row| row.data_key.is_some()) else { return Ok(()) };
    if open(&row, session.key()) != from {
        return Ok(());
    }
    let sealed = seal(session.id, session.key(), to)?;
    let renamed = store.replace_name(session.id, &row.name, &sealed).await;
    if renamed.map_err(|error| failures::storage(session.id, &error))? {
        set(session, to);
    }
    Ok(())
}

/// Sets the name in memory and tells all subscribers.
fn set(session: &Session, name: &str) {
    name.clone_into(&mut session.live.lock().name);
    session.publish_view();
}

/// A name made from a message: its first line, cut at a word if it is long.
pub(crate) fn from_message(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line: String = line.chars().filter(|char| !char.is_control()).collect();
    if line.chars().count() <= MAX_CHARS {
        return line;
    }
    let cut: String = line.chars().take(MAX_CHARS - 1).collect();
    let words = cut.rsplit_once(char::is_whitespace).map_or(cut.as_str(), |(words, _)| words);
    format!("{}…", words.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_first_line_cut_at_a_word() {
        assert_eq!(from_message("\n  Where do swifts sleep?\nAnd when?"), "Where do swifts sleep?");
        assert_eq!(from_message(" \n\t"), "");
        let long = from_message(&"swift ".repeat(40));
        assert!(long.ends_with("swift…") && long.chars().count() <= MAX_CHARS, "{long}");
        let unbroken = from_message(&"鳥".repeat(200));
        assert_eq!(unbroken.chars().count(), MAX_CHARS);
    }
}
