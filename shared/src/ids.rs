//! Ids as types of their own, so that no session id is ever passed where a message id belongs.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A text that is no id of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct BadId;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id that sorts by the time of its making (UUIDv7).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            /// Accepts the hyphenated form only, in either case: one id, one spelling.
            fn from_str(text: &str) -> Result<Self, BadId> {
                if text.len() != 36 {
                    return Err(BadId);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| BadId)
            }
        }
    };
}

uuid_id! {
    /// A conversation. Made by the client, so that creating it twice is harmless.
    SessionId
}
uuid_id! {
    /// One entry of a session's log.
    MessageId
}
uuid_id! {
    /// One WebSocket connection, unique over the whole cluster.
    ConnectionId
}
uuid_id! {
    /// The client's own id of a message: the key that makes sending it again harmless.
    ClientMessageId
}

uuid_id! {
    /// One call of a model's provider; its record in the ledger has this id, and the provider is told it.
    CallId
}

/// A user: the `sub` claim of the token, 1–128 characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(std::sync::Arc<str>);

impl UserId {
    /// Takes the text as it is; the token check has already bounded its length.
    pub fn new(text: impl Into<std::sync::Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The place of an entry in its session's log: 1, 2, 3 … 0 stands before the first.
pub type Seq = u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text() {
        let id = SessionId::generate();
        assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
    }

    #[test]
    fn other_spellings_of_a_uuid_are_refused() {
        let id = SessionId::generate();
        for text in
            [id.0.simple().to_string(), format!("{{{id}}}"), format!("urn:uuid:{id}"), String::new(), "x".repeat(36)]
        {
            assert_eq!(text.parse::<SessionId>(), Err(BadId), "{text}");
        }
    }
}
