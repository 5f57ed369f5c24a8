//! Conversion between rows and BSON documents: ids are UUID binaries, times are dates, absent fields are left out.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document};
use uuid::Uuid;

use crate::store::record::{Field, Source, Value};
use crate::store::{StoreError, StoreResult};

/// A document to insert. A dotted name is a field of an inner document.
pub(super) fn document(fields: &[Field<'_>]) -> Document {
    let mut document = Document::new();
    for (name, value) in fields {
        let Some(value) = to_bson(*value) else { continue };
        match name.split_once('.') {
            None => drop(document.insert(*name, value)),
            Some((outer, inner)) => match document.get_document_mut(outer) {
                Ok(existing) => drop(existing.insert(inner, value)),
                Err(_) => drop(document.insert(outer, Document::from_iter([(inner.to_owned(), value)]))),
            },
        }
    }
    document
}

/// An update of exactly the fields `names`: sets those present in `fields`, removes the others.
pub(super) fn replacement(names: &[&str], fields: &[Field<'_>]) -> Document {
    let (mut set, mut unset) = (Document::new(), Document::new());
    for name in names {
        let value = fields.iter().rev().find(|(field, _)| field == name).map_or(Value::Absent, |(_, value)| *value);
        match to_bson(value) {
            Some(value) => drop(set.insert(*name, value)),
            None => drop(unset.insert(*name, "")),
        }
    }
    let parts = [("$set", set), ("$unset", unset)].into_iter().filter(|(_, part)| !part.is_empty());
    parts.map(|(name, part)| (name.to_owned(), Bson::Document(part))).collect()
}

fn to_bson(value: Value<'_>) -> Option<Bson> {
    match value {
        Value::Absent => None,
        Value::Id(id) => Some(id_to_bson(id)),
        Value::Int(number) => Some(Bson::Int64(number)),
        Value::Bool(set) => Some(Bson::Boolean(set)),
        Value::Time(ms) => Some(time_to_bson(ms)),
        Value::Text(text) => Some(Bson::String(text.to_owned())),
        Value::Bytes(bytes) => Some(bytes_to_bson(bytes)),
    }
}

/// An id as it is stored.
pub(super) fn id_to_bson(id: Uuid) -> Bson {
    Bson::Binary(bson::Uuid::from_uuid_1(id).into())
}

/// Unix milliseconds as they are stored.
pub(super) fn time_to_bson(ms: i64) -> Bson {
    Bson::DateTime(DateTime::from_millis(ms))
}

/// Ciphertext as it is stored.
pub(super) fn bytes_to_bson(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
}

/// A document read from a collection.
pub(super) struct Stored(pub(super) Document);

impl Stored {
    fn get<T>(&self, name: &'static str, read: impl FnOnce(&Bson) -> Option<T>) -> StoreResult<Option<T>> {
        let value = match name.split_once('.') {
            None => self.0.get(name),
            Some((outer, inner)) => self.0.get(outer).and_then(Bson::as_document).and_then(|outer| outer.get(inner)),
        };
        match value {
            None | Some(Bson::Null) => Ok(None),
            Some(value) => {
                read(value).map(Some).ok_or_else(|| StoreError::Corrupt(format!("the field {name} has the wrong type")))
            }
        }
    }
}

impl Source for Stored {
    fn id(&self, name: &'static str) -> StoreResult<Option<Uuid>> {
        self.get(name, |value| match value {
            Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes }) => Uuid::from_slice(bytes).ok(),
            _ => None,
        })
    }

    fn int(&self, name: &'static str) -> StoreResult<Option<i64>> {
        // Tools for editing documents may turn a long into an int.
        self.get(name, |value| value.as_i64().or_else(|| value.as_i32().map(i64::from)))
    }

    fn bool(&self, name: &'static str) -> StoreResult<Option<bool>> {
        self.get(name, Bson::as_bool)
    }

    fn time(&self, name: &'static str) -> StoreResult<Option<i64>> {
        self.get(name, |value| value.as_datetime().map(|time| time.timestamp_millis()))
    }

    fn text(&self, name: &'static str) -> StoreResult<Option<String>> {
        self.get(name, |value| value.as_str().map(str::to_owned))
    }

    fn bytes(&self, name: &'static str) -> StoreResult<Option<Vec<u8>>> {
        self.get(name, |value| match value {
            Bson::Binary(Binary { bytes, .. }) => Some(bytes.clone()),
            _ => None,
        })
    }
}
