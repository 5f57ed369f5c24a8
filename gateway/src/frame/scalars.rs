//! The small values that several server frames share: times, optional values, roles and people. Protobuf writes an
//! absent value as empty or zero; JSON omits it where the contract marks the field optional.

use chatbox_shared::clock::Timestamp;
use chatbox_shared::proto::{self, SenderRole};
use serde::{Serialize, Serializer};

/// Unix milliseconds, serialised as RFC 3339.
pub(super) struct Time(pub(super) i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Timestamp(self.0))
    }
}

/// A text; `None` if it is empty.
pub(super) fn text(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A number; `None` if it is zero.
pub(super) fn number(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number > 0)
}

/// The name of a role in the contract.
fn role(role: SenderRole) -> &'static str {
    match role {
        SenderRole::User => "user",
        SenderRole::Ai => "ai",
        SenderRole::Admin => "admin",
        SenderRole::System | SenderRole::Unspecified => "system",
    }
}

/// A person with a role.
#[derive(Serialize)]
pub(super) struct PersonJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    role: &'static str,
}

impl<'a> PersonJson<'a> {
    /// The system as a sender.
    pub(super) const SYSTEM: Self = Self { id: None, name: None, role: "system" };

    pub(super) fn of(person: &'a proto::Person) -> Self {
        Self { id: text(&person.id), name: text(&person.name), role: role(person.role()) }
    }
}

/// An admin. The name of the field that holds the value says the role.
#[derive(Serialize)]
pub(super) struct AdminJson<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl<'a> AdminJson<'a> {
    pub(super) fn of(person: &'a proto::Person) -> Self {
        Self { id: &person.id, name: text(&person.name) }
    }
}
