//! An error of one setting.

/// An error of one setting: its key and the reason. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {reason}")]
pub struct SettingError {
    /// The dotted key; relative to its section until [`SettingError::within`].
    pub key: String,
    /// The reason, as the rest of a sentence that begins with the key.
    pub reason: String,
}

impl SettingError {
    /// An error of the setting `key`.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into() }
    }

    /// The same error with the full key below `section`.
    #[must_use]
    pub fn within(self, section: &str) -> Self {
        Self { key: format!("{section}.{}", self.key), ..self }
    }
}

/// Collects the errors of a section.
#[derive(Default)]
pub(super) struct SettingErrors(pub(super) Vec<SettingError>);

impl SettingErrors {
    /// Adds an error of `key`.
    pub(super) fn add(&mut self, key: &str, reason: impl Into<String>) {
        self.0.push(SettingError::new(key, reason));
    }
}
