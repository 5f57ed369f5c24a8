//! The schema of the settings, taken from the default TOML: which keys exist and which type each has.

use toml::{Table, Value};

use super::errors::ConfigErrors;
use super::keys::{env_name, get};

/// What may be set, and of which type it is.
pub(super) struct Schema<'a> {
    pub(super) defaults: &'a Table,
    pub(super) secrets: &'a [&'a str],
    pub(super) unlisted: &'a [&'a str],
}

impl Schema<'_> {
    /// Checks the settings of a file and removes invalid ones: unknown keys, values of another type, and secrets.
    pub(super) fn check_file(&self, table: &mut Table, file: &str, errors: &mut ConfigErrors) {
        self.check_section("", table, self.defaults, file, errors);
    }

    fn check_section(&self, prefix: &str, table: &mut Table, known: &Table, file: &str, errors: &mut ConfigErrors) {
        table.retain(|name, value| {
            let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            if self.unlisted.contains(&key.as_str()) {
                return true;
            }
            if self.secrets.contains(&key.as_str()) {
                let reason = format!("a secret must not be in {file}: set {} or {key}_file", env_name(&key));
                errors.add(key, reason);
                return false;
            }
            match (known.get(name), value) {
                (Some(Value::Table(known)), Value::Table(given)) => {
                    self.check_section(&key, given, known, file, errors);
                    true
                }
                (Some(known), given) if same_type(known, given) => true,
                (Some(known), given) => {
                    let (wanted, found) = (type_name(known), type_name(given));
                    errors.add(key, format!("must be {wanted}, found {found} (in {file})"));
                    false
                }
                (None, _) => {
                    errors.add(key, format!("unknown setting (in {file}){}", known_names(known)));
                    false
                }
            }
        });
    }

    /// Reads the text of an environment variable as the type of `key`. `None`: it counts as not set.
    pub(super) fn parse(&self, key: &str, text: String) -> Result<Option<Value>, String> {
        if self.secrets.contains(&key) {
            // Deployment tools pass a variable without a value as an empty one.
            return Ok((!text.is_empty()).then_some(Value::String(text)));
        }
        if self.unlisted.contains(&key) {
            return parse_toml(&text).map(Some).ok_or_else(|| "must be a TOML value".to_owned());
        }
        let known = match get(self.defaults, key) {
            Some(Value::Table(_)) => return Err("names a section, not a setting".to_owned()),
            Some(known) => known,
            None => return Err(self.unknown(key)),
        };
        if known.is_str() {
            return Ok(Some(Value::String(text)));
        }
        match parse_toml(text.trim()) {
            Some(value) if same_type(known, &value) => Ok(Some(value)),
            _ => Err(format!("must be {}", type_name(known))),
        }
    }

    fn unknown(&self, key: &str) -> String {
        if let Some(meant) = self.variable_like(&env_name(key)) {
            return format!("unknown setting; did you mean {meant}?");
        }
        let siblings = match key.rsplit_once('.') {
            Some((section, _)) => get(self.defaults, section).and_then(Value::as_table),
            None => Some(self.defaults),
        };
        format!("unknown setting{}", siblings.map(known_names).unwrap_or_default())
    }

    /// The variable of a setting that differs from `name` only in the number of underscores between words.
    pub(super) fn variable_like(&self, name: &str) -> Option<String> {
        let plain = |name: &str| name.replace("__", "_");
        let mut keys: Vec<String> = self.secrets.iter().chain(self.unlisted).map(|key| (*key).to_owned()).collect();
        collect(self.defaults, "", &mut keys);
        keys.iter().map(|key| env_name(key)).find(|known| plain(known) == plain(name))
    }
}

fn collect(table: &Table, prefix: &str, keys: &mut Vec<String>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            Value::Table(below) => collect(below, &format!("{key}."), keys),
            _ => keys.push(key),
        }
    }
}

fn parse_toml(text: &str) -> Option<Value> {
    // A line break would let the text add keys of its own.
    if text.contains(['\n', '\r']) {
        return None;
    }
    toml::from_str::<Table>(&format!("value = {text}")).ok()?.remove("value")
}

fn same_type(known: &Value, given: &Value) -> bool {
    known.same_type(given) || (known.is_float() && given.is_integer())
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list such as [\"a\", \"b\"]",
        Value::Table(_) => "a section",
    }
}

/// Names the settings of a section, so that a misspelling is easy to see.
fn known_names(section: &Table) -> String {
    let names: Vec<&str> = section.keys().map(String::as_str).collect();
    format!("; known: {}", names.join(", "))
}
