//! The stored form of rows, common to all stores: the names of the fields and their contents. A store converts a
//! [`Value`] into its own type when it writes, and presents its documents as a [`Source`] when it reads.

use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{Seq, UserId};
use uuid::Uuid;

use super::{StoreError, StoreResult};
use crate::log::entry::Person;

pub(super) mod entry;
pub(super) mod session;
pub(super) mod usage;

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// The field is absent.
    Absent,
    /// A UUID.
    Id(Uuid),
    /// A whole number.
    Int(i64),
    /// A yes or no.
    Bool(bool),
    /// Unix milliseconds, UTC.
    Time(i64),
    /// Clear text.
    Text(&'a str),
    /// Ciphertext.
    Bytes(&'a [u8]),
}

/// A named value.
pub(super) type Field<'a> = (&'static str, Value<'a>);

/// A document or table row to read from. Each method returns `None` where the field is absent, and
/// [`StoreError::Corrupt`] where it has another type.
pub(super) trait Source {
    fn id(&self, name: &'static str) -> StoreResult<Option<Uuid>>;
    fn int(&self, name: &'static str) -> StoreResult<Option<i64>>;
    fn bool(&self, name: &'static str) -> StoreResult<Option<bool>>;
    fn time(&self, name: &'static str) -> StoreResult<Option<i64>>;
    fn text(&self, name: &'static str) -> StoreResult<Option<String>>;
    fn bytes(&self, name: &'static str) -> StoreResult<Option<Vec<u8>>>;
}

/// A required field.
fn required<T>(name: &'static str, value: StoreResult<Option<T>>) -> StoreResult<T> {
    value?.ok_or_else(|| StoreError::Corrupt(format!("the field {name} is missing")))
}

/// A number that is never negative.
fn unsigned(source: &impl Source, name: &'static str) -> StoreResult<Option<u64>> {
    source.int(name)?.map(|number| u64::try_from(number).map_err(|_| out_of_range(name))).transpose()
}

/// A small number that is never negative.
fn small(source: &impl Source, name: &'static str) -> StoreResult<Option<u32>> {
    source.int(name)?.map(|number| u32::try_from(number).map_err(|_| out_of_range(name))).transpose()
}

fn timestamp(source: &impl Source, name: &'static str) -> StoreResult<Option<Timestamp>> {
    Ok(source.time(name)?.map(Timestamp))
}

/// A person from its two fields.
fn person(source: &impl Source, id: &'static str, name: &'static str) -> StoreResult<Option<Person>> {
    let Some(id) = source.text(id)? else { return Ok(None) };
    Ok(Some(Person { id: UserId::new(id), name: source.text(name)? }))
}

fn out_of_range(name: &'static str) -> StoreError {
    StoreError::Corrupt(format!("the field {name} is out of range"))
}

/// The value of a text that this version knows; an error for any other.
fn known<T>(name: &'static str, text: &str, value: Option<T>) -> StoreResult<T> {
    value.ok_or_else(|| {
        StoreError::Corrupt(format!("the field {name} holds {text:?}, which this version does not support"))
    })
}

/// The largest seq a store can hold. A caller that reads backwards from the end may pass a larger one.
pub(super) const MAX_SEQ: Seq = i64::MAX.unsigned_abs();

/// A number as stores hold it: databases have no unsigned 64-bit integers.
pub(super) fn signed(number: u64) -> StoreResult<i64> {
    i64::try_from(number).map_err(|_| StoreError::Refused("a number is too large to be stored".into()))
}

impl<'a> Value<'a> {
    fn unsigned(number: u64) -> StoreResult<Self> {
        signed(number).map(Self::Int)
    }

    fn unsigned_or_absent(number: Option<u64>) -> StoreResult<Self> {
        number.map_or(Ok(Self::Absent), Self::unsigned)
    }

    fn text_or_absent(text: Option<&'a str>) -> Self {
        text.map_or(Self::Absent, Self::Text)
    }

    fn time_or_absent(time: Option<Timestamp>) -> Self {
        time.map_or(Self::Absent, |time| Self::Time(time.0))
    }

    /// Ciphertext; absent where empty.
    pub(super) fn sealed(bytes: &'a [u8]) -> Self {
        if bytes.is_empty() { Self::Absent } else { Self::Bytes(bytes) }
    }

    fn flag(set: bool) -> Self {
        if set { Self::Bool(true) } else { Self::Absent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page people read names every field of every collection.
    #[test]
    fn the_documentation_names_every_field() {
        let page = include_str!("../../../docs/indexes.md");
        for (collection, fields) in [
            ("sessions", session::FIELDS),
            ("messages", entry::FIELDS),
            ("usage", usage::FIELDS),
            ("accounts", usage::ACCOUNT),
            ("accounts", usage::RESERVATION),
        ] {
            let section = page.split(&format!("## `{collection}`")).nth(1).unwrap().split("\n## ").next().unwrap();
            for field in fields {
                let name = field.split_once('.').map_or(*field, |(outer, _)| outer);
                assert!(section.contains(&format!("| `{name}` |")), "{collection}.{name}");
            }
        }
    }

    #[test]
    fn numbers_that_no_database_holds_are_refused() {
        assert_eq!(signed(u64::from(u32::MAX)).unwrap(), 4_294_967_295);
        assert!(matches!(signed(u64::MAX), Err(StoreError::Refused(_))));
    }
}
