//! What is wrong with the settings: every fault with its key, so that one look is enough to put all of them right.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The dotted key, such as `limits.max_headers`.
    pub key: String,
    /// What is wrong with it, never a secret's value.
    pub reason: String,
}

/// All that is wrong with the settings. Displays as one line per fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault. A key that has one already keeps its first: what follows from a wrong value helps nobody.
    pub fn add(&mut self, key: impl Into<String>, reason: impl fmt::Display) {
        let key = key.into();
        if !self.has(&key) {
            self.0.push(Fault { key, reason: reason.to_string() });
        }
    }

    /// Adds a fault unless `ok`.
    pub fn ensure(&mut self, ok: bool, key: &str, reason: impl fmt::Display) {
        if !ok {
            self.add(key, reason);
        }
    }

    /// Has this key a fault?
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|fault| fault.key == key)
    }

    /// Is nothing wrong?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl std::error::Error for Faults {}

/// Control characters are escaped: a value out of a file must not make lines of its own.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.0.iter().enumerate() {
            let line = format!("{}: {}", fault.key, fault.reason);
            let newline = if number == 0 { "" } else { "\n" };
            write!(f, "{newline}{}", crate::telemetry::one_line(&line))?;
        }
        Ok(())
    }
}
