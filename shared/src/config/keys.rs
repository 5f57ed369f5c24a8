//! Dotted keys, such as `store.sqlite.path`: their values in a tree of settings, and their environment variables.

use toml::{Table, Value};

/// The first part of the name of every environment variable that is a setting.
pub const ENV_PREFIX: &str = "CHATBOX__";
/// Names the settings file where no `--config` does.
pub const ENV_FILE: &str = "CHATBOX_CONFIG";

/// The environment variable of a dotted key.
pub(super) fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// The key as people write it: `models[0].id` for `models.0.id`.
pub(super) fn shown(key: &str) -> String {
    let mut text = String::with_capacity(key.len() + 1);
    for part in key.split('.') {
        if !text.is_empty() && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            text.push_str(&format!("[{part}]"));
        } else {
            text.push_str(if text.is_empty() { "" } else { "." });
            text.push_str(part);
        }
    }
    text
}

/// The value at a dotted key; a number selects an element of a list.
pub(super) fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| match value {
        Value::Table(table) => table.get(part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Sets the value at a dotted key and makes the tables above it.
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

/// Lays `over` on top of `base`: tables are merged, every other value replaces the one below.
pub(super) fn merge(base: &mut Table, over: &Table) {
    for (name, value) in over {
        match (base.get_mut(name), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            _ => drop(base.insert(name.clone(), value.clone())),
        }
    }
}
