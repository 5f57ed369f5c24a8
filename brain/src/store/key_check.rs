//! Checks that the keyring can unwrap the data keys of stored sessions. With another keyring a brain could read no session.

use super::keyring::Keyring;
use super::{Store, StoreResult};

/// Master keys checked at most. A deployment has one per rotation.
const MAX_KIDS: u32 = 1000;

/// Whether the keyring must fit the stored sessions before the brain becomes ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyCheck {
    /// The keyring must hold every master key that stored sessions need.
    Required,
    /// No check. Sessions whose master key is missing or wrong cannot be read.
    Skipped,
}

impl KeyCheck {
    /// Why the keyring does not fit the stored sessions; `None` if it does. Unwraps the data key of one session per kid.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn problem(self, store: &dyn Store, keyring: &Keyring) -> StoreResult<Option<String>> {
        if self == Self::Skipped {
            return Ok(None);
        }
        let (mut missing, mut wrong) = (Vec::new(), Vec::new());
        for (session, key) in store.key_samples(MAX_KIDS).await? {
            if !keyring.kids().any(|kid| kid == key.kid) {
                missing.push(key.kid);
            } else if keyring.unwrap(&key, session).is_err() {
                wrong.push(key.kid);
            }
        }
        let problems =
            [("master keys that are not in keys.keyring", missing), ("other keys than those in keys.keyring", wrong)];
        Ok(describe(problems))
    }
}

/// The problems as one sentence, each with its kids.
fn describe(problems: [(&str, Vec<String>); 2]) -> Option<String> {
    let found = problems.into_iter().filter(|(_, kids)| !kids.is_empty());
    let found: Vec<_> = found.map(|(problem, kids)| format!("{problem}: {}", kids.join(", "))).collect();
    let found = Some(found.join("; and ")).filter(|found| !found.is_empty())?;
    Some(format!("stored sessions need {found}; correct keys.keyring, or set keys.allow_missing = true"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::cipher::SessionKey;
    use crate::store::conformance::session_row;
    use crate::store::sqlite::SqliteStore;

    fn keyring(kid: &str) -> Keyring {
        Keyring::parse(&Keyring::generate_line(kid).unwrap(), None).unwrap()
    }

    async fn store_session(store: &dyn Store, keyring: &Keyring) {
        let mut row = session_row("user");
        row.data_key = Some(keyring.wrap(&SessionKey::generate(row.id).unwrap(), row.id).unwrap());
        store.create_session(&row).await.unwrap();
    }

    #[tokio::test]
    async fn missing_and_wrong_keys_of_stored_sessions_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("chat.db")).unwrap();
        store.migrate().await.unwrap();
        let current = keyring("new");
        assert_eq!(KeyCheck::Required.problem(&store, &current).await.unwrap(), None);
        for keyring in [&keyring("old"), &current, &keyring("older"), &keyring("old")] {
            store_session(&store, keyring).await;
        }
        let problem = KeyCheck::Required.problem(&store, &current).await.unwrap().unwrap();
        assert!(problem.contains("need master keys that are not in keys.keyring: old, older; correct"), "{problem}");
        let problem = KeyCheck::Required.problem(&store, &keyring("new")).await.unwrap().unwrap();
        assert!(problem.contains("old, older; and other keys than those in keys.keyring: new; correct"), "{problem}");
        assert_eq!(KeyCheck::Skipped.problem(&store, &current).await.unwrap(), None);
    }
}
