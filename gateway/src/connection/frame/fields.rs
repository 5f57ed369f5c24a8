//! Reads one JSON object into its fields and hands them out by name and type. Whatever is left over at the end, came
//! twice, is nested too deeply or has the wrong type is refused by name.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use chatbox_shared::failure::{ErrorCode, Failure};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::{MAX_DEPTH, MAX_NUMBER};

/// A field's name is repeated in the error only up to this many characters.
const MAX_SHOWN_CHARS: usize = 64;

/// What a field may hold. The contract is flat, so an object is only known to have been one.
enum Value<'a> {
    Null,
    Bool(bool),
    /// Whole, not negative, at most [`MAX_NUMBER`].
    Whole(u64),
    OtherNumber,
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object,
}

/// The fields of one frame that nobody has asked for yet.
pub(super) struct Fields<'a>(Entries<'a>);

type Entries<'a> = SmallVec<[(Cow<'a, str>, Value<'a>); 6]>;

impl<'a> Fields<'a> {
    /// Takes a frame's text apart.
    pub(super) fn read(text: &'a str) -> Result<Self, Failure> {
        let mut entries = Entries::new();
        let problem = Cell::new(None);
        let mut json = serde_json::Deserializer::from_str(text);
        let outcome =
            ObjectSeed { entries: &mut entries, problem: &problem }.deserialize(&mut json).and_then(|()| json.end());
        match (outcome, problem.take(), entries.last()) {
            (Ok(()), _, _) => Ok(Self(entries)),
            (Err(_), Some(problem), Some((field, _))) => Err(Failure::invalid(shown(field), problem)),
            _ => Err(Failure::with_message(ErrorCode::InvalidMessage, "A frame must be one JSON object.")),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value<'a>> {
        let place = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.swap_remove(place).1)
    }

    /// A text of 1 to `max` characters that need not be there.
    pub(super) fn optional_text(&mut self, name: &'static str, max: usize) -> Result<Option<String>, Failure> {
        let text = match self.take(name) {
            None => return Ok(None),
            Some(Value::Text(text)) => text,
            Some(_) => return Err(Failure::invalid(name, "This field must be a text.")),
        };
        if text.is_empty() {
            return Err(Failure::invalid(name, "This field must not be empty."));
        }
        if text.len() > max && text.chars().count() > max {
            return Err(Failure::invalid(name, format!("This field may have at most {max} characters.")));
        }
        Ok(Some(text.into_owned()))
    }

    /// A text of 1 to `max` characters.
    pub(super) fn text(&mut self, name: &'static str, max: usize) -> Result<String, Failure> {
        self.optional_text(name, max)?.ok_or_else(|| missing(name))
    }

    /// An id in its lower-case form.
    pub(super) fn id<T: FromStr + ToString>(&mut self, name: &'static str) -> Result<String, Failure> {
        match self.take(name) {
            None => Err(missing(name)),
            Some(value) => id::<T>(name, value),
        }
    }

    /// A list of at most `max` ids that need not be there.
    pub(super) fn ids<T: FromStr + ToString>(
        &mut self,
        name: &'static str,
        max: usize,
    ) -> Result<Vec<String>, Failure> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::List(list)) if list.len() <= max => {
                list.into_iter().map(|value| id::<T>(name, value)).collect()
            }
            Some(_) => Err(Failure::invalid(name, format!("This field must be a list of at most {max} ids."))),
        }
    }

    /// A whole number from 0 to [`MAX_NUMBER`] that need not be there.
    pub(super) fn optional_whole(&mut self, name: &'static str) -> Result<Option<u64>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Whole(number)) => Ok(Some(number)),
            Some(_) => Err(Failure::invalid(name, "This field must be a whole number from 0 to 2^53.")),
        }
    }

    /// A whole number from 0 to [`MAX_NUMBER`].
    pub(super) fn whole(&mut self, name: &'static str) -> Result<u64, Failure> {
        self.optional_whole(name)?.ok_or_else(|| missing(name))
    }

    /// True or false that need not be there.
    pub(super) fn optional_flag(&mut self, name: &'static str) -> Result<Option<bool>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(Failure::invalid(name, "This field must be true or false.")),
        }
    }

    /// True or false.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Failure> {
        self.optional_flag(name)?.ok_or_else(|| missing(name))
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some((field, _)) => Err(Failure::invalid(shown(field), "This field does not belong to this type.")),
        }
    }
}

fn id<T: FromStr + ToString>(name: &'static str, value: Value<'_>) -> Result<String, Failure> {
    match value {
        Value::Text(text) => text.parse::<T>().ok().map(|id| id.to_string()),
        _ => None,
    }
    .ok_or_else(|| Failure::invalid(name, "This field must be a UUID in its hyphenated form."))
}

fn missing(name: &'static str) -> Failure {
    Failure::invalid(name, "This field is missing.")
}

/// A client's own field name, short enough to be repeated to it.
fn shown(field: &str) -> String {
    field.chars().take(MAX_SHOWN_CHARS).collect()
}

/// Why reading stopped, where it was not the JSON itself; the field is the last one begun.
type Problem<'s> = &'s Cell<Option<&'static str>>;

struct ObjectSeed<'s, 'a> {
    entries: &'s mut Entries<'a>,
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
            let Value::Text(key) = key else { return Err(A::Error::custom("a key is a text")) };
            let twice = self.entries.iter().any(|(field, _)| *field == key);
            // The field stands there before its value is read, so that a fault in the value is known to be its fault.
            self.entries.push((key, Value::Null));
            if twice {
                self.problem.set(Some("This field must not come twice."));
                return Err(A::Error::custom("duplicate"));
            }
            self.problem.set(Some("This field is not valid JSON."));
            let value = map.next_value_seed(seed())?;
            self.problem.set(None);
            if let Some(entry) = self.entries.last_mut() {
                entry.1 = value;
            }
        }
        Ok(())
    }
}

struct ValueSeed<'s> {
    /// How deep a list or object would be that begins here.
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
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value<'de>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(if number <= MAX_NUMBER { Value::Whole(number) } else { Value::OtherNumber })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'de>, E> {
        Ok(Value::OtherNumber)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::OtherNumber)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        let mut list = Vec::new();
        // Asked before the first element, so that an empty list is not one level deeper than a full one.
        while let Some(value) = seq.next_element_seed(self.deeper()?)? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        self.deeper()?;
        while map.next_key::<IgnoredAny>()?.is_some() {
            let _nested = map.next_value_seed(self.deeper()?)?;
        }
        Ok(Value::Object)
    }
}
