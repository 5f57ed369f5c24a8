//! Between entries in the clear and rows with ciphertext.

use crate::session::Session;
use crate::session::entry::{Body, Content, Entry};
use crate::store::EntryRow;
use crate::store::cipher::CipherError;

impl Session {
    /// The row of an entry: its content encrypted for exactly this place in the log.
    ///
    /// # Errors
    /// Where encryption fails, or the content cannot be read and so must not be written back.
    pub(crate) fn seal(&self, entry: &Entry) -> Result<EntryRow, CipherError> {
        let content = match &entry.content {
            Content::Text(text) if text.is_empty() && matches!(entry.meta.body, Body::Event(_)) => Vec::new(),
            Content::Text(text) => self.key().seal_content(self.id, entry.meta.seq, text)?,
            Content::Unreadable => {
                return Err(CipherError::Damaged { session: self.id, seq: entry.meta.seq, field: "ct" });
            }
        };
        Ok(EntryRow { meta: entry.meta.clone(), content })
    }

    /// The entry of a row. Content that does not decrypt spoils this entry only, and is logged.
    pub(crate) fn unseal(&self, row: EntryRow) -> Entry {
        // Only events may have no content at all: a message whose ciphertext was taken away is not an empty message.
        let opened = match &row.meta.body {
            Body::Event(_) if row.content.is_empty() => Ok(String::new()),
            _ => self.key().open_content(self.id, row.meta.seq, &row.content),
        };
        let content = match opened {
            Ok(text) => Content::Text(text),
            Err(error) => {
                tracing::error!(session = %self.id, seq = row.meta.seq, %error, "stored content cannot be read");
                Content::Unreadable
            }
        };
        Entry { meta: row.meta, content }
    }
}
