//! The frames of the server: the JSON of docs/protocol.md, as far as a client needs it. Unknown fields and types are ignored.

use serde::Deserialize;

/// A frame from the server. The fields are those of docs/protocol.md.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The first frame of a connection.
    Welcome(Welcome),
    /// A session was opened, or its summary has changed.
    Session {
        /// The `id` of the request.
        reply_to: Option<String>,
        /// The summary.
        session: Session,
    },
    /// The replay is complete; live events follow.
    SessionReady {
        /// The session.
        session_id: String,
    },
    /// A page of the session list.
    Sessions {
        /// The `id` of the request.
        reply_to: Option<String>,
        /// Latest activity first.
        sessions: Vec<Session>,
    },
    /// A page of older entries.
    Entries {
        /// The `id` of the request.
        reply_to: Option<String>,
        /// The session.
        session_id: String,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// A new or changed entry.
    Entry {
        /// The session.
        session_id: String,
        /// The whole entry.
        entry: Entry,
    },
    /// A request was carried out; for a message: it is stored.
    Ack {
        /// The `id` of the request.
        reply_to: Option<String>,
        /// The client's id of the message.
        client_msg_id: Option<String>,
        /// The number of the message's entry.
        seq: Option<u64>,
    },
    /// A part of a streaming answer.
    AiDelta {
        /// The session.
        session_id: String,
        /// The text and its place.
        #[serde(flatten)]
        delta: Delta,
    },
    /// News about the connection.
    Notice {
        /// The stable code.
        code: String,
        /// A text for people.
        #[serde(default)]
        message: String,
        /// Wait so long before connecting again.
        reconnect_after_ms: Option<u64>,
    },
    /// A request failed.
    Error {
        /// The `id` of the request.
        reply_to: Option<String>,
        /// The stable code.
        code: String,
        /// A text for people.
        #[serde(default)]
        message: String,
        /// True if the same request may succeed later.
        #[serde(default)]
        retryable: bool,
        /// Wait so long before a retry.
        retry_after_ms: Option<u64>,
        /// Finds the server's log line.
        error_id: Option<String>,
    },
    /// An unknown frame, or one that no client here needs.
    #[serde(other)]
    Other,
}

/// The contents of `welcome`.
#[derive(Debug, Clone, Deserialize)]
pub struct Welcome {
    /// The id of this connection.
    pub connection_id: String,
    /// The user of the token.
    pub user: Person,
    /// The interval of the server's pings.
    pub heartbeat_interval_ms: Option<u64>,
    /// The model of a new session.
    #[serde(default)]
    pub default_model_id: Option<String>,
}

/// A user, an admin, the model or the system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Person {
    /// The kind of the sender.
    #[serde(default)]
    pub role: Role,
    /// The id; absent for the model and the system.
    pub id: Option<String>,
    /// The display name.
    pub name: Option<String>,
}

/// The kind of a sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A user.
    User,
    /// The model.
    Ai,
    /// An admin.
    Admin,
    /// The system, or an unknown role.
    #[default]
    #[serde(other)]
    System,
}

/// The summary of a session.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Session {
    /// The id.
    pub id: String,
    /// Identifies the log: another epoch is another log.
    pub epoch: Option<String>,
    /// The title.
    #[serde(default)]
    pub name: String,
    /// `active` or `ended`.
    #[serde(default)]
    pub state: String,
    /// RFC 3339.
    pub last_activity_at: Option<String>,
    /// The admin who assists.
    pub assisting_admin: Option<Person>,
    /// The number of the first entry that is replayed. Set if the replay leaves out older entries.
    pub truncated_before: Option<u64>,
    /// True if the client's copy of the log is void.
    #[serde(default)]
    pub reset: bool,
}

/// One entry of a session's log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// The number in the log: 1, 2, 3 …
    pub seq: u64,
    /// The revision; a higher one replaces the entry.
    pub rev: u64,
    /// The id.
    pub id: String,
    /// Final, streaming or failed.
    #[serde(default)]
    pub state: EntryState,
    /// Who wrote it.
    pub sender: Person,
    /// The text.
    #[serde(default)]
    pub content: String,
    /// Set for events.
    pub event: Option<serde_json::Value>,
    /// The message that this answer belongs to.
    pub reply_to_seq: Option<u64>,
    /// The model that answered.
    pub model_id: Option<String>,
    /// The attempt that the text belongs to.
    #[serde(default)]
    pub attempt: u64,
    /// The index of the next delta.
    #[serde(default)]
    pub next_index: u64,
    /// Why the answer ended.
    pub finish_reason: Option<String>,
    /// Set for a failed answer.
    pub error: Option<EntryError>,
    /// Tokens, once known.
    pub usage: Option<Usage>,
}

/// The state of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// An answer that still grows.
    Streaming,
    /// An answer that failed; its text is kept.
    Failed,
    /// Complete; also any unknown state.
    #[default]
    #[serde(other)]
    Final,
}

/// Why an answer failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EntryError {
    /// The stable code.
    pub code: String,
    /// True if the same request may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// RFC 3339: the earliest time for a retry.
    pub retry_at: Option<String>,
}

/// Tokens of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Tokens of the answer.
    #[serde(default)]
    pub output_tokens: u64,
    /// True if the provider reported no counts.
    #[serde(default)]
    pub estimated: bool,
}

/// A part of a streaming answer: the text to append at `index`.
#[derive(Debug, Clone, Deserialize)]
pub struct Delta {
    /// The number in the log: 1, 2, 3 …
    pub seq: u64,
    /// The attempt that the text belongs to.
    pub attempt: u64,
    /// The index of the first merged delta.
    pub index: u64,
    /// How many deltas were merged.
    #[serde(default = "one")]
    pub count: u64,
    /// The text to append.
    pub delta: String,
}

fn one() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_types_and_fields_are_ignored() {
        assert!(matches!(serde_json::from_str(r#"{"type":"news","x":1}"#).unwrap(), ServerFrame::Other));
        let ServerFrame::AiDelta { session_id, delta } = serde_json::from_str(
            r#"{"type":"ai_delta","session_id":"s","seq":2,"attempt":1,"index":3,"delta":"x","more":{}}"#,
        )
        .unwrap() else {
            panic!("another type")
        };
        assert_eq!(
            (session_id.as_str(), delta.seq, delta.index, delta.count, delta.delta.as_str()),
            ("s", 2, 3, 1, "x")
        );
    }

    #[test]
    fn an_entry_needs_little() {
        let entry: Entry = serde_json::from_str(
            r#"{"seq":1,"rev":1,"id":"m","kind":"message","state":"final","sender":{"role":"user","id":"u"},"content":"hi","created_at":"t"}"#,
        )
        .unwrap();
        assert_eq!((entry.state, entry.sender.role, entry.content.as_str()), (EntryState::Final, Role::User, "hi"));
    }
}
