//! Checks that the keyring contains every master key that stored sessions need. With another keyring a brain could read
//! none of them.

use super::keyring::Keyring;
use super::{Store, StoreResult};

/// Key ids read from the store at most. A deployment has one per rotation; ids beyond the bound are not checked.
const MAX_KIDS: u32 = 1000;

/// The check of a keyring against the store.
#[derive(Debug, Clone)]
pub struct KeyCheck {
    /// The ids in the keyring; `None` where missing keys are allowed.
    present: Option<Vec<String>>,
}

impl KeyCheck {
    /// Checks this keyring, unless missing keys are allowed.
    pub fn new(keyring: &Keyring, allow_missing: bool) -> Self {
        Self { present: (!allow_missing).then(|| keyring.kids().map(str::to_owned).collect()) }
    }

    /// The ids of the keys that stored sessions need and the keyring lacks.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn missing(&self, store: &dyn Store) -> StoreResult<Vec<String>> {
        let Some(present) = &self.present else { return Ok(Vec::new()) };
        let mut needed = store.key_ids(MAX_KIDS).await?;
        needed.retain(|kid| !present.contains(kid));
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::session_row;
    use crate::store::sqlite::SqliteStore;

    #[tokio::test]
    async fn keys_of_stored_sessions_that_are_not_in_the_keyring_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("chat.db")).unwrap();
        store.migrate().await.unwrap();
        let ring = Keyring::parse(&Keyring::generate_line("new").unwrap(), None).unwrap();
        let check = KeyCheck::new(&ring, false);
        assert_eq!(check.missing(&store).await.unwrap(), Vec::<String>::new());
        for kid in ["old", "new", "older", "old"] {
            let mut row = session_row("user");
            row.data_key.as_mut().unwrap().kid = kid.into();
            store.create_session(&row).await.unwrap();
        }
        assert_eq!(check.missing(&store).await.unwrap(), ["old", "older"]);
        assert_eq!(KeyCheck::new(&ring, true).missing(&store).await.unwrap(), Vec::<String>::new());
    }
}
