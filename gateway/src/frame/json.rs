//! Strict JSON: one object with its fields in order. A duplicate field and a value that is nested too deeply are errors
//! that name the field. What a field means is not known here.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

/// Deepest nesting of a client frame; the frame itself is level 1.
pub const MAX_DEPTH: u32 = 32;
/// Largest number. A double, and so JavaScript, represents every integer up to it exactly.
pub const MAX_NUMBER: u64 = 1 << 53;

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
    let problem = Cell::new(None);
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome =
        ObjectSeed { fields: &mut fields, problem: &problem }.deserialize(&mut json).and_then(|()| json.end());
    match outcome {
        Ok(()) => Ok(fields),
        Err(_) => Err(JsonError { field: problem.take().and_then(|problem| Some((fields.pop()?.0, problem))) }),
    }
}

/// Why reading stopped inside a field. The field at fault is the last one that was added.
type Problem<'s> = &'s Cell<Option<&'static str>>;

struct ObjectSeed<'s, 'a> {
    fields: &'s mut JsonFields<'a>,
    problem: Problem<'s>,
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
        let seed = || ValueSeed { depth: 2, problem: self.problem };
        while let Some(key) = map.next_key_seed(seed())? {
            let JsonValue::Text(key) = key else { return Err(A::Error::custom("a key is a text")) };
            let twice = self.fields.iter().any(|(field, _)| *field == key);
            // The field is added before its value is read, so that an error in the value names this field.
            self.fields.push((key, JsonValue::Null));
            if twice {
                self.problem.set(Some("This field must not be given twice."));
                return Err(A::Error::custom("duplicate"));
            }
            self.problem.set(Some("This field is not valid JSON."));
            let value = map.next_value_seed(seed())?;
            self.problem.set(None);
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
    problem: Problem<'s>,
}

impl ValueSeed<'_> {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth > MAX_DEPTH {
            self.problem.set(Some("This field is nested too deeply."));
            return Err(E::custom("too deep"));
        }
        Ok(Self { depth: self.depth + 1, problem: self.problem })
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = JsonValue<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<JsonValue<'de>, D::Error> {
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
