//! One layer of settings: a file or the environment as a tree of keys, with every key checked against the schema. What
//! has a fault is left out of the tree, so that the rest can still be checked.

use std::ffi::OsString;
use std::path::Path;

use toml::{Table, Value};

use super::faults::Faults;
use super::{ENV_FILE, ENV_PREFIX};

/// What may be set, and of which type it is.
pub(super) struct Schema<'a> {
    pub(super) defaults: &'a Table,
    pub(super) secrets: &'a [&'a str],
    pub(super) unlisted: &'a [&'a str],
}

/// Settings from one place.
pub(super) struct Layer {
    /// Names the place in a fault, such as `in chatbox.toml`.
    origin: Origin,
    pub(super) table: Table,
}

enum Origin {
    File(String),
    Environment,
}

impl Layer {
    pub(super) fn from_file(path: &Path, schema: &Schema<'_>, faults: &mut Faults) -> Self {
        let name = path.display().to_string();
        let mut table = Table::new();
        match std::fs::read_to_string(path) {
            Err(error) => {
                faults.add("--config", format!("cannot read {name} (named by --config or {ENV_FILE}): {error}"))
            }
            Ok(text) => match toml::from_str::<Table>(&text) {
                Ok(parsed) => {
                    table = parsed;
                    schema.check_file("", &mut table, schema.defaults, &name, faults);
                }
                Err(error) => faults.add(name.clone(), toml_fault(&text, &error)),
            },
        }
        Self { origin: Origin::File(name), table }
    }

    pub(super) fn from_env(env: Vec<(OsString, OsString)>, schema: &Schema<'_>, faults: &mut Faults) -> Self {
        let mut table = Table::new();
        for (name, value) in env {
            let name = name.to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            let key = rest.to_ascii_lowercase().replace("__", ".");
            match value.into_string().map_err(|_| "not UTF-8 text".to_owned()).and_then(|text| schema.parse(&key, text))
            {
                Ok(Some(value)) => set(&mut table, &key, value),
                Ok(None) => {}
                Err(reason) => faults.add(key, format!("{reason} (environment variable {name})")),
            }
        }
        Self { origin: Origin::Environment, table }
    }

    /// Where this layer sets `key`, if it does, as the end of a sentence.
    pub(super) fn origin_of(&self, key: &str) -> Option<String> {
        get(&self.table, key)?;
        Some(match &self.origin {
            Origin::File(name) => format!("(in {name})"),
            Origin::Environment => format!("(environment variable {})", env_name(key)),
        })
    }
}

impl Schema<'_> {
    /// Removes from `table` what the schema does not have, what has another type, and secrets; each is a fault.
    fn check_file(&self, prefix: &str, table: &mut Table, schema: &Table, file: &str, faults: &mut Faults) {
        table.retain(|name, value| {
            let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            if self.unlisted.contains(&key.as_str()) {
                return true;
            }
            if self.secrets.contains(&key.as_str()) {
                let reason = format!("a secret does not belong in {file}: set {} or {key}_file", env_name(&key));
                faults.add(key, reason);
                return false;
            }
            match (schema.get(name), value) {
                (Some(Value::Table(known)), Value::Table(given)) => {
                    self.check_file(&key, given, known, file, faults);
                    true
                }
                (Some(known), given) if same_type(known, given) => true,
                (Some(known), given) => {
                    faults.add(key, format!("{} expected, {} found (in {file})", type_name(known), type_name(given)));
                    false
                }
                (None, _) => {
                    faults.add(key, format!("there is no such setting (in {file}){}", hint(schema)));
                    false
                }
            }
        });
    }

    /// Reads the text of an environment variable as what the schema wants for `key`. `None`: it counts as not set.
    fn parse(&self, key: &str, text: String) -> Result<Option<Value>, String> {
        if self.secrets.contains(&key) {
            // Deployment tools hand on variables they have no value for as empty ones.
            return Ok((!text.is_empty()).then_some(Value::String(text)));
        }
        if self.unlisted.contains(&key) {
            return parse_toml(&text).map(Some).ok_or_else(|| "not a TOML value".to_owned());
        }
        let parent = key.rsplit_once('.').map_or("", |(parent, _)| parent);
        let known = match get(self.defaults, key) {
            Some(Value::Table(_)) => return Err("a section, not a setting".to_owned()),
            Some(known) => known,
            None => {
                let siblings = if parent.is_empty() {
                    Some(self.defaults)
                } else {
                    get(self.defaults, parent).and_then(Value::as_table)
                };
                return Err(format!("there is no such setting{}", siblings.map(hint).unwrap_or_default()));
            }
        };
        if known.is_str() {
            return Ok(Some(Value::String(text)));
        }
        match parse_toml(text.trim()) {
            Some(value) if same_type(known, &value) => Ok(Some(value)),
            _ => Err(format!("{} expected", type_name(known))),
        }
    }
}

/// A TOML syntax error on one line, without the line of the file it would quote: that may be a secret.
pub(super) fn toml_fault(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .map_or(1, |span| text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1);
    format!("not valid TOML at line {line}: {}", error.message().replace('\n', ", "))
}

/// The environment variable of a dotted key.
pub(super) fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Lays `over` on top of `base`: tables are merged, everything else replaces.
pub(super) fn merge(base: &mut Table, over: &Table) {
    for (name, value) in over {
        match (base.get_mut(name), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            _ => drop(base.insert(name.clone(), value.clone())),
        }
    }
}

/// The value at a dotted key; numbers lead into arrays.
pub(super) fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| match value {
        Value::Table(table) => table.get(part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Puts a value at a dotted key, making the tables above it.
pub(super) fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((first, rest)) => {
            let below = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                set(below, rest, value);
            }
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
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list, such as [\"a\", \"b\"],",
        Value::Table(_) => "a section",
    }
}

/// Names the settings that are there, so that a typing error is easy to see.
fn hint(siblings: &Table) -> String {
    let names: Vec<&str> = siblings.keys().map(String::as_str).collect();
    format!("; there are: {}", names.join(", "))
}
