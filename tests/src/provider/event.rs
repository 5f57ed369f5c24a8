//! One event of a stream before it is written down: what it says, not how its lines end. How it is written is a matter of
//! [`super::dress`].

use serde_json::Value;

/// What a stream is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A line that says nothing.
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

    /// Its plain form: `data: ` with one space, lines that end with LF, a blank line.
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

/// `more` laid over `base`; both are objects.
pub(super) fn merged(mut base: Value, more: &Value) -> Value {
    if let (Some(base), Some(more)) = (base.as_object_mut(), more.as_object()) {
        base.extend(more.clone());
    }
    base
}
