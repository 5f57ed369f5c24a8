//! The JSON of docs/protocol.md, as far as this client needs it. Unknown fields and types are ignored.

use serde::Deserialize;

/// A message from the server.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Server {
    Welcome(Welcome),
    Session {
        reply_to: Option<String>,
        session: Session,
    },
    SessionReady {
        session_id: String,
    },
    Sessions {
        reply_to: Option<String>,
        sessions: Vec<Session>,
    },
    Entries {
        reply_to: Option<String>,
        session_id: String,
        entries: Vec<Entry>,
    },
    Entry {
        session_id: String,
        entry: Entry,
    },
    Ack {
        reply_to: Option<String>,
        client_msg_id: Option<String>,
        seq: Option<u64>,
    },
    AiDelta {
        session_id: String,
        #[serde(flatten)]
        delta: Delta,
    },
    Notice {
        code: String,
        #[serde(default)]
        message: String,
        reconnect_after_ms: Option<u64>,
    },
    Error {
        reply_to: Option<String>,
        code: String,
        #[serde(default)]
        message: String,
        #[serde(default)]
        retryable: bool,
        retry_after_ms: Option<u64>,
        error_id: Option<String>,
    },
    /// Something this client does not know or does not need.
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Welcome {
    pub(super) connection_id: String,
    pub(super) user: Person,
    pub(super) heartbeat_interval_ms: Option<u64>,
    #[serde(default)]
    pub(super) default_model_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Person {
    #[serde(default)]
    pub(super) role: Role,
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
}

/// Who says something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    User,
    Ai,
    Admin,
    #[default]
    #[serde(other)]
    System,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) epoch: Option<String>,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) state: String,
    pub(super) last_activity_at: Option<String>,
    pub(super) assisting_admin: Option<Person>,
    pub(super) truncated_before: Option<u64>,
    #[serde(default)]
    pub(super) reset: bool,
}

/// One entry of a session's log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) rev: u64,
    pub(super) id: String,
    #[serde(default)]
    pub(super) state: State,
    pub(super) sender: Person,
    #[serde(default)]
    pub(super) content: String,
    pub(super) event: Option<serde_json::Value>,
    pub(super) reply_to_seq: Option<u64>,
    pub(super) model_id: Option<String>,
    #[serde(default)]
    pub(super) attempt: u64,
    #[serde(default)]
    pub(super) next_index: u64,
    pub(super) finish_reason: Option<String>,
    pub(super) error: Option<EntryError>,
    pub(super) usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Streaming,
    Failed,
    #[default]
    #[serde(other)]
    Final,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct EntryError {
    pub(super) code: String,
    #[serde(default)]
    pub(super) retryable: bool,
    pub(super) retry_at: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) output_tokens: u64,
    #[serde(default)]
    pub(super) estimated: bool,
}

/// A piece of an answer.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Delta {
    pub(super) seq: u64,
    pub(super) attempt: u64,
    pub(super) index: u64,
    #[serde(default = "one")]
    pub(super) count: u64,
    pub(super) delta: String,
}

fn one() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_types_and_fields_are_ignored() {
        assert!(matches!(serde_json::from_str(r#"{"type":"news","x":1}"#).unwrap(), Server::Other));
        let Server::AiDelta { session_id, delta } = serde_json::from_str(
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
        assert_eq!((entry.state, entry.sender.role, entry.content.as_str()), (State::Final, Role::User, "hi"));
    }
}
