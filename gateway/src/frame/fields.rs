//! The fields of one client frame, taken by name and type. A missing field, a field of the wrong type and a field that
//! no one took are errors that name the field.

use std::str::FromStr;

use chatbox_shared::failure::{ErrorCode, Failure};

use super::json::{JsonFields, JsonValue, read_object};

/// Longest field name that is repeated in an error, in characters.
const MAX_SHOWN_CHARS: usize = 64;

/// The fields of one frame that were not taken yet.
pub(super) struct Fields<'a>(JsonFields<'a>);

impl<'a> Fields<'a> {
    /// Parses the text of a frame.
    pub(super) fn read(text: &'a str) -> Result<Self, Failure> {
        read_object(text).map(Self).map_err(|error| match error.field {
            Some((field, problem)) => Failure::invalid(shown(&field), problem),
            None => Failure::with_message(ErrorCode::InvalidMessage, "A frame must be one JSON object."),
        })
    }

    fn take(&mut self, name: &str) -> Option<JsonValue<'a>> {
        let index = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.swap_remove(index).1)
    }

    /// An optional text of 1 to `max` characters.
    pub(super) fn optional_text(&mut self, name: &'static str, max: usize) -> Result<Option<String>, Failure> {
        let text = match self.take(name) {
            None => return Ok(None),
            Some(JsonValue::Text(text)) => text,
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

    /// A required text of 1 to `max` characters.
    pub(super) fn text(&mut self, name: &'static str, max: usize) -> Result<String, Failure> {
        self.optional_text(name, max)?.ok_or_else(|| missing(name))
    }

    /// A required id, returned in lower case.
    pub(super) fn id<T: FromStr + ToString>(&mut self, name: &'static str) -> Result<String, Failure> {
        match self.take(name) {
            None => Err(missing(name)),
            Some(value) => id::<T>(name, value),
        }
    }

    /// An optional list of at most `max` ids.
    pub(super) fn ids<T: FromStr + ToString>(
        &mut self,
        name: &'static str,
        max: usize,
    ) -> Result<Vec<String>, Failure> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(JsonValue::List(list)) if list.len() <= max => {
                list.into_iter().map(|value| id::<T>(name, value)).collect()
            }
            Some(_) => Err(Failure::invalid(name, format!("This field must be a list of at most {max} ids."))),
        }
    }

    /// An optional integer from 0 to [`MAX_NUMBER`](super::json::MAX_NUMBER).
    pub(super) fn optional_whole(&mut self, name: &'static str) -> Result<Option<u64>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(JsonValue::Whole(number)) => Ok(Some(number)),
            Some(_) => Err(Failure::invalid(name, "This field must be a whole number from 0 to 2^53.")),
        }
    }

    /// A required integer from 0 to [`MAX_NUMBER`](super::json::MAX_NUMBER).
    pub(super) fn whole(&mut self, name: &'static str) -> Result<u64, Failure> {
        self.optional_whole(name)?.ok_or_else(|| missing(name))
    }

    /// An optional boolean.
    pub(super) fn optional_flag(&mut self, name: &'static str) -> Result<Option<bool>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(JsonValue::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(Failure::invalid(name, "This field must be true or false.")),
        }
    }

    /// A required boolean.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Failure> {
        self.optional_flag(name)?.ok_or_else(|| missing(name))
    }

    /// Rejects the frame if a field was not taken.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some((field, _)) => Err(Failure::invalid(shown(field), "This field does not belong to this type.")),
        }
    }
}

fn id<T: FromStr + ToString>(name: &'static str, value: JsonValue<'_>) -> Result<String, Failure> {
    match value {
        JsonValue::Text(text) => text.parse::<T>().ok().map(|id| id.to_string()),
        _ => None,
    }
    .ok_or_else(|| Failure::invalid(name, "This field must be a UUID in its hyphenated form."))
}

fn missing(name: &'static str) -> Failure {
    Failure::invalid(name, "This field is missing.")
}

/// A client's field name, cut to [`MAX_SHOWN_CHARS`].
fn shown(field: &str) -> String {
    field.chars().take(MAX_SHOWN_CHARS).collect()
}
