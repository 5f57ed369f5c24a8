//! One event of a stream before it is encoded. [`super::format`] encodes it.

use serde_json::Value;

/// One part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A comment line.
    Comment(String),
    /// An event: its name, where it has an `event:` line, and its data, where it has any.
    Data {
        /// The `event:` line.
        name: Option<String>,
        /// What the `data:` lines hold.
        data: Option<String>,
    },
}

impl Event {
    /// An event without a name.
    pub(super) fn data(data: impl ToString) -> Self {
        Self::Data { name: None, data: Some(data.to_string()) }
    }

    /// An event with a name.
    pub(super) fn named(name: &str, data: impl ToString) -> Self {
        Self::Data { name: Some(name.to_owned()), data: Some(data.to_string()) }
    }

    /// An event with a name and nothing else.
    pub(super) fn bare(name: &str) -> Self {
        Self::Data { name: Some(name.to_owned()), data: None }
    }

    /// The plain form: `data: ` with one space, lines that end with LF, a blank line.
    pub(super) fn plain(&self) -> String {
        match self {
            Self::Comment(text) => format!(": {text}\n\n"),
            Self::Data { name, data } => {
                let name = name.iter().map(|name| format!("event: {name}\n"));
                let data = data.iter().map(|data| format!("data: {data}\n"));
                name.chain(data).chain(["\n".to_owned()]).collect()
            }
        }
    }
}

/// The fields of `base`, replaced by those of `more`. Both are objects.
pub(super) fn merged(mut base: Value, more: &Value) -> Value {
    if let (Some(base), Some(more)) = (base.as_object_mut(), more.as_object()) {
        base.extend(more.clone());
    }
    base
}
