//! What is wrong with the settings: every error with its key, so that one start shows all of them.

use std::fmt;

use crate::one_line::one_line;

/// One invalid setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The dotted key, such as `limits.max_headers` or `models[0].id`.
    pub key: String,
    /// What is wrong with its value. Never the value of a secret.
    pub reason: String,
}

/// All invalid settings. Displays as one line per error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Adds an error. A key keeps its first error: later ones mostly follow from the first.
    pub fn add(&mut self, key: impl Into<String>, reason: impl fmt::Display) {
        let key = key.into();
        if !self.has(&key) {
            self.0.push(ConfigError { key, reason: reason.to_string() });
        }
    }

    /// Adds an error unless `ok`.
    pub fn ensure(&mut self, ok: bool, key: &str, reason: impl fmt::Display) {
        if !ok {
            self.add(key, reason);
        }
    }

    /// Adds all errors of `other`, by the rule of [`ConfigErrors::add`].
    pub fn append(&mut self, other: Self) {
        other.0.into_iter().for_each(|error| self.add(error.key, error.reason));
    }

    /// True if this key has an error.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|error| error.key == key)
    }

    /// True if there is no error.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The errors in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl std::error::Error for ConfigErrors {}

/// Control characters are escaped, so that a value from a file cannot add lines.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            let line = format!("{}: {}", error.key, error.reason);
            let newline = if number == 0 { "" } else { "\n" };
            write!(f, "{newline}{}", one_line(&line))?;
        }
        Ok(())
    }
}
