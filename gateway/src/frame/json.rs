//! Strict JSON: one object with its fields in order. A duplicate field, a value that is nested too deeply and too many
//! fields or values are errors that name the field. What a field means is not known here.
//!
//! The first error ends the reading. With the limits below, the time per byte is about the same for every text.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

/// Deepest nesting of a client frame; the frame itself is level 1.
pub const MAX_DEPTH: u32 = 32;
/// Largest number. A double, and so JavaScript, represents every integer up to it exactly.
pub const MAX_NUMBER: u64 = 1 << 53;

/// Largest number of fields. The largest request has 8.
pub(super) const MAX_FIELDS: usize = 16;
/// Largest number of values in a frame: names of fields, fields, and the elements of lists and objects at every depth.
/// The largest request has 16 names and values, and a list of 20 ids.
const MAX_VALUES: u32 = 128;

/// The value of a field. The contract has no nested objects, so only the fact that a value is an object is kept.
pub(super) enum JsonValue<'a> {
    Null,
    Bool(bool),
    /// An integer from 0 to [`MAX_NUMBER`].
    Whole(u64),
    OtherNumber,
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object,
}

/// The fields of an object in their order in the text.
pub(super) type JsonFields<'a> = SmallVec<[(Cow<'a, str>, JsonValue<'a>); 6]>;

/// Why a text is not a valid object.
pub(super) struct JsonError<'a> {
    /// The field at fault and the message for the client. `None`: the text as a whole is not a JSON object.
    pub(super) field: Option<(Cow<'a, str>, &'static str)>,
}

/// Reads a text that must be exactly one JSON object.
pub(super) fn read_object(text: &str) -> Result<JsonFields<'_>, JsonError<'_>> {
    let mut fields = JsonFields::new();
    let progress = Progress::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome =
        ObjectSeed { fields: &mut fields, progress: &progress }.deserialize(&mut json).and_then(|()| json.end());
    match outcome {
        Ok(()) => Ok(fields),
        Err(_) => {
            Err(JsonError { field: progress.problem.take().and_then(|problem| Some((fields.pop()?.0, problem))) })
        }
    }
}

/// How far the reading of one text has come.
#[derive(Default)]
struct Progress {
    /// Why the reading stopped inside a field. The field at fault is the last one that was added.
    problem: Cell<Option<&'static str>>,
    /// The values that were begun.
    values: Cell<u32>,
}

impl Progress {
    /// Ends the reading because of the last field.
    fn stop<T, E: serde::de::Error>(&self, problem: &'static str) -> Result<T, E> {
        self.problem.set(Some(problem));
        Err(E::custom(problem))
    }

    /// Counts a value that begins.
    fn count_value<E: serde::de::Error>(&self) -> Result<(), E> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > MAX_VALUES { self.stop("This field has too many values.") } else { Ok(()) }
    }
}

struct ObjectSeed<'s, 'a> {
    fields: &'s mut JsonFields<'a>,
    progress: &'s Progress,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let seed = || ValueSeed { depth: 2, progress: self.progress };
        while let Some(key) = map.next_key_seed(seed())? {
            let JsonValue::Text(key) = key else { return Err(A::Error::custom("a key is a text")) };
            let twice = self.fields.iter().any(|(field, _)| *field == key);
            // The field is added before its value is read, so that an error in the value names this field.
            self.fields.push((key, JsonValue::Null));
            if twice {
                return self.progress.stop("This field must not be given twice.");
            }
            if self.fields.len() > MAX_FIELDS {
                return self.progress.stop("The frame has too many fields.");
            }
            self.progress.problem.set(Some("This field is not valid JSON."));
            let value = map.next_value_seed(seed())?;
            self.progress.problem.set(None);
            if let Some(entry) = self.fields.last_mut() {
                entry.1 = value;
            }
        }
        Ok(())
    }
}

struct ValueSeed<'s> {
    /// The depth of a list or object that begins here.
    depth: u32,
    progress: &'s Progress,
}

impl ValueSeed<'_> {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth > MAX_DEPTH {
            return self.progress.stop("This field is nested too deeply.");
        }
        Ok(Self { depth: self.depth + 1, progress: self.progress })
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = JsonValue<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<JsonValue<'de>, D::Error> {
        self.progress.count_value()?;
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = JsonValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<JsonValue<'de>, E> {
        Ok(JsonValue::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<JsonValue<'de>, E> {
        Ok(JsonValue::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<JsonValue<'de>, E> {
        Ok(if number <= MAX_NUMBER { JsonValue::Whole(number) } else { JsonValue::OtherNumber })
    }

    fn visit_i64<E>(self, _: i64) -> Result<JsonValue<'de>, E> {
        Ok(JsonValue::OtherNumber)
    }

    fn visit_f64<E>(self, _: f64) -> Result<JsonValue<'de>, E> {
        Ok(JsonValue::OtherNumber)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<JsonValue<'de>, E> {
        Ok(JsonValue::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonValue<'de>, E> {
        Ok(JsonValue::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<JsonValue<'de>, A::Error> {
        let mut list = Vec::new();
        // `deeper` is called before the first element, so that an empty list counts as one level like any other list.
        while let Some(value) = seq.next_element_seed(self.deeper()?)? {
            list.push(value);
        }
        Ok(JsonValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonValue<'de>, A::Error> {
        self.deeper()?;
        while map.next_key::<IgnoredAny>()?.is_some() {
            let _nested = map.next_value_seed(self.deeper()?)?;
        }
        Ok(JsonValue::Object)
    }
}
