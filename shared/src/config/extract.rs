//! From the merged tree to the typed settings. Deserialising stops at its first error; [`extract`] then sets the invalid value
//! back to its default and tries again, so that every error is found.
//!
//! figment deserialises, because its error keeps the path, the kind, the value found and the known names apart. The error of
//! `toml` is a finished text, from which the messages here could not be made.

use std::collections::{HashMap, HashSet};

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::providers::Serialized;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::errors::ConfigErrors;
use super::keys::{get, set, shown};
use super::layer::Layer;

/// At most this many errors of one configuration are listed.
const MAX_ERRORS: usize = 100;

/// Reads `tree` as `S`. `None` where an invalid value cannot be set back; the error is reported either way.
pub(super) fn extract<S: DeserializeOwned>(
    tree: Table,
    defaults: &Table,
    layers: &[Layer],
    errors: &mut ConfigErrors,
) -> Option<S> {
    let mut work = Work { tree, defaults, removed: HashSet::new(), indices: HashMap::new() };
    for _ in 0..MAX_ERRORS {
        let error = match Figment::from(Serialized::defaults(&work.tree)).extract::<S>() {
            Ok(settings) => return Some(settings),
            Err(error) => error,
        };
        let mut path = error.path.clone();
        let missing = matches!(error.kind, Kind::MissingField(_));
        if let Kind::MissingField(name) = &error.kind {
            path.push(name.to_string());
        }
        let key = work.original(&path);
        // A field that this loop removed is not missing in the configuration.
        if !(missing && work.removed.contains(&key)) {
            let parent = key.rsplit_once('.').map(|(parent, _)| parent);
            let origin = [Some(key.as_str()), parent]
                .into_iter()
                .flatten()
                .find_map(|key| layers.iter().rev().find_map(|layer| layer.origin_of(key)));
            errors.add(shown(&key), describe(&error.kind, origin.as_deref()));
        }
        if !work.put_aside(&path, key) {
            return None;
        }
    }
    None
}

/// The tree, from which invalid values are removed.
struct Work<'a> {
    tree: Table,
    defaults: &'a Table,
    /// Removed keys.
    removed: HashSet<String>,
    /// For a list that lost elements: the original indexes of those that are left.
    indices: HashMap<String, Vec<usize>>,
}

impl Work<'_> {
    /// The key of a path with the original indexes: an element keeps its index after one before it was removed.
    fn original(&self, path: &[String]) -> String {
        let Some(at) = self.list_on(path) else { return path.join(".") };
        let mut path = path.to_vec();
        let place = path[at].parse::<usize>().ok().and_then(|now| self.indices.get(&path[..at].join("."))?.get(now));
        if let Some(place) = place {
            path[at] = place.to_string();
        }
        path.join(".")
    }

    /// The position in the path of the first index into a list.
    fn list_on(&self, path: &[String]) -> Option<usize> {
        (1..path.len()).find(|at| get(&self.tree, &path[..*at].join(".")).is_some_and(Value::is_array))
    }

    /// Sets the value at `path` back to its default, or removes it where it has none. False: neither is possible.
    fn put_aside(&mut self, path: &[String], key: String) -> bool {
        for length in (1..=path.len()).rev() {
            let listed = path[..length].join(".");
            if let Some(default) = get(self.defaults, &listed).filter(|value| !value.is_table()) {
                let changes = get(&self.tree, &listed) != Some(default);
                set(&mut self.tree, &listed, default.clone());
                return changes;
            }
        }
        if self.remove(path) {
            self.removed.insert(key);
            return true;
        }
        match self.list_on(path) {
            Some(at) => self.remove_element(&path[..at], &path[at]),
            None => false,
        }
    }

    /// Removes the key a path ends with from its table.
    fn remove(&mut self, path: &[String]) -> bool {
        let Some((name, above)) = path.split_last() else { return false };
        let table =
            if above.is_empty() { Some(&mut self.tree) } else { self.value_mut(above).and_then(Value::as_table_mut) };
        table.is_some_and(|table| table.remove(name).is_some())
    }

    fn remove_element(&mut self, list: &[String], index: &str) -> bool {
        let Ok(index) = index.parse::<usize>() else { return false };
        let Some(items) = self.value_mut(list).and_then(Value::as_array_mut).filter(|items| index < items.len()) else {
            return false;
        };
        let count = items.len();
        items.remove(index);
        self.indices.entry(list.join(".")).or_insert_with(|| (0..count).collect()).remove(index);
        true
    }

    fn value_mut(&mut self, path: &[String]) -> Option<&mut Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.tree.get_mut(first)?, |value, part| match value {
            Value::Table(table) => table.get_mut(part),
            Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

/// The error as a sentence about the key, with the place of the value.
fn describe(kind: &Kind, origin: Option<&str>) -> String {
    let reason = match kind {
        Kind::Message(text) => text.clone(),
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("must be {}, found {}", wanted(&expected.to_string()), found(actual))
        }
        Kind::UnknownField(_, known) => format!("unknown setting; known: {}", known.join(", ")),
        Kind::UnknownVariant(given, known) => format!("must be one of {}, found \"{given}\"", known.join(", ")),
        Kind::MissingField(_) => "missing".to_owned(),
        other => other.to_string(),
    };
    origin.map_or(reason.clone(), |origin| format!("{reason} {origin}"))
}

/// What serde expected, without the names of Rust's types.
fn wanted(expected: &str) -> String {
    let (least, name) = expected.strip_prefix("a nonzero ").map_or((0, expected), |name| (1, name));
    let most = match name {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" | "usize" => return format!("a whole number from {least}"),
        "i8" | "i16" | "i32" | "i64" | "isize" => return "a whole number".to_owned(),
        "f32" | "f64" => return "a number".to_owned(),
        other => return other.to_owned(),
    };
    format!("a whole number from {least} to {most}")
}

/// The value in the configuration, where it is short.
fn found(actual: &Actual) -> String {
    match actual {
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        Actual::Float(value) => value.to_string(),
        Actual::Str(value) => format!("\"{value}\""),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a section".to_owned(),
        other => other.to_string(),
    }
}
