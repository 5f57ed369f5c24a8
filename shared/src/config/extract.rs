//! From the merged tree to the typed settings. Deserialising stops at its first fault; here the value at fault is put
//! back to its default and the rest is tried again, so that every fault is found.

use std::collections::{HashMap, HashSet};

use figment::Figment;
use figment::error::Kind;
use figment::providers::Serialized;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::faults::Faults;
use super::source::{Layer, get, set};

/// More faults than this in one configuration are not worth listing.
const MAX_FAULTS: usize = 100;

/// Reads `tree` as `S`. `None` where what is at fault cannot be put aside; the fault is reported either way.
pub(super) fn extract<S: DeserializeOwned>(
    tree: Table,
    defaults: &Table,
    layers: &[Layer],
    faults: &mut Faults,
) -> Option<S> {
    let mut work = Work { tree, defaults, removed: HashSet::new(), indices: HashMap::new() };
    for _ in 0..MAX_FAULTS {
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
        // A field this loop took out is no news.
        if !(missing && work.removed.contains(&key)) {
            let parent = key.rsplit_once('.').map(|(parent, _)| parent);
            let origin = [Some(key.as_str()), parent]
                .into_iter()
                .flatten()
                .find_map(|key| layers.iter().rev().find_map(|layer| layer.origin_of(key)));
            faults.add(&key, describe(&error.kind, origin.as_deref()));
        }
        if !work.put_aside(&path, key) {
            return None;
        }
    }
    None
}

/// The tree as faults are taken out of it.
struct Work<'a> {
    tree: Table,
    defaults: &'a Table,
    /// Keys taken out.
    removed: HashSet<String>,
    /// For a list that lost elements: the places those that are left had at first.
    indices: HashMap<String, Vec<usize>>,
}

impl Work<'_> {
    /// The key of a path as the source counts it: elements keep their numbers after one before them was taken out.
    fn original(&self, path: &[String]) -> String {
        let Some(at) = self.list_on(path) else { return path.join(".") };
        let mut path = path.to_vec();
        let place = path[at].parse::<usize>().ok().and_then(|now| self.indices.get(&path[..at].join("."))?.get(now));
        if let Some(place) = place {
            path[at] = place.to_string();
        }
        path.join(".")
    }

    /// Where on the path the first index into a list stands.
    fn list_on(&self, path: &[String]) -> Option<usize> {
        (1..path.len()).find(|at| get(&self.tree, &path[..*at].join(".")).is_some_and(Value::is_array))
    }

    /// Makes the value at `path` harmless: its default where it has one, else without it. False: nothing left to try.
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

fn describe(kind: &Kind, origin: Option<&str>) -> String {
    let reason = match kind {
        Kind::Message(text) => text.clone(),
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("{expected} expected, {actual} found")
        }
        Kind::UnknownField(_, known) => format!("there is no such setting; there are: {}", known.join(", ")),
        Kind::UnknownVariant(given, known) => format!("one of {} expected, \"{given}\" found", known.join(", ")),
        Kind::MissingField(_) => "missing".to_owned(),
        other => other.to_string(),
    };
    origin.map_or(reason.clone(), |origin| format!("{reason} {origin}"))
}
