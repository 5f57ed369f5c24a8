//! Settings of a service: dotted keys in one TOML table.

use anyhow::{Result, bail};
use toml::{Table, Value};

/// The contents of a configuration file.
#[derive(Debug, Clone, Default)]
pub struct Settings(Table);

impl Settings {
    /// Sets `section.key` (any depth), replacing what was there.
    ///
    /// # Errors
    /// A part of the path is already a plain value.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> Result<()> {
        let mut table = &mut self.0;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                table.insert(part.to_owned(), value.into());
                return Ok(());
            }
            table = match table.entry(part).or_insert_with(|| Value::Table(Table::new())) {
                Value::Table(inner) => inner,
                other => bail!("{path}: {part} is already {other}"),
            };
        }
        bail!("an empty key")
    }

    /// Whether `section.key` (any depth) is set.
    pub fn has(&self, path: &str) -> bool {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let deeper = rest.split('.').filter(|part| !part.is_empty());
        deeper.fold(self.0.get(first), |value, part| value.and_then(|value| value.get(part))).is_some()
    }

    /// The file's text.
    pub fn text(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_keys_become_sections() -> Result<()> {
        let mut settings = Settings::default();
        settings.set("a.b.c", 1)?;
        settings.set("a.b.d", "x")?;
        settings.set("a.b.c", 2)?;
        assert_eq!(settings.text().parse::<Table>()?, "[a.b]\nc = 2\nd = \"x\"".parse::<Table>()?);
        assert!(settings.set("a.b.c.e", 1).is_err());
        assert!(settings.has("a.b.c") && settings.has("a.b") && !settings.has("a.b.x") && !settings.has("c.b"));
        Ok(())
    }
}
