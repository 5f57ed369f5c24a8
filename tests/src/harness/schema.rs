//! The messages of `docs/asyncapi.yaml` as JSON schemas. Every frame that the tests send and receive is checked against
//! them, so the page cannot say anything else than the services do.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail, ensure};
use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// The page.
const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/asyncapi.yaml"));

/// Who sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sender {
    /// Requests of a client.
    Client,
    /// Replies and events of the server.
    Server,
}

/// The schemas of all messages, by sender and `type`.
pub struct Schemas(BTreeMap<(Sender, String), Validator>);

static SCHEMAS: LazyLock<Result<Schemas>> = LazyLock::new(|| Schemas::parse(PAGE));

/// Checks a frame against the schema of its type.
///
/// # Errors
/// The page has no such message, or the frame is another one than the page describes.
pub fn check(sender: Sender, frame: &Value) -> Result<()> {
    schemas()?.check(sender, frame)
}

/// The types of all messages of one sender.
///
/// # Errors
/// The page cannot be read.
pub fn types(sender: Sender) -> Result<Vec<&'static str>> {
    Ok(schemas()?.0.keys().filter(|(from, _)| *from == sender).map(|(_, kind)| kind.as_str()).collect())
}

/// The types of all requests that name a session.
///
/// # Errors
/// The page cannot be read.
pub fn requests_about_a_session() -> Result<Vec<String>> {
    let page: Value = serde_norway::from_str(PAGE)?;
    let mut found = Vec::new();
    for (key, sender) in senders(&page)? {
        let payload = &page["components"]["messages"][&key]["payload"];
        if sender == Sender::Client && payload["properties"].get("session_id").is_some() {
            found.push(constant_type(payload).context(key)?);
        }
    }
    Ok(found)
}

fn schemas() -> Result<&'static Schemas> {
    SCHEMAS.as_ref().map_err(|error| anyhow::anyhow!("docs/asyncapi.yaml: {error:#}"))
}

impl Schemas {
    fn parse(page: &str) -> Result<Self> {
        let page: Value = serde_norway::from_str(page)?;
        let mut schemas = BTreeMap::new();
        for (key, sender) in senders(&page)? {
            let payload = &page["components"]["messages"][&key]["payload"];
            let kind = constant_type(payload).with_context(|| key.clone())?;
            let schema = json!({
                "$ref": format!("#/components/messages/{key}/payload"),
                "components": page["components"],
            });
            let validator = jsonschema::options().should_validate_formats(true).build(&schema);
            let validator = validator.map_err(|error| anyhow::anyhow!("{key}: {error}"))?;
            ensure!(schemas.insert((sender, kind.clone()), validator).is_none(), "two messages are {kind}");
        }
        Ok(Self(schemas))
    }

    fn check(&self, sender: Sender, frame: &Value) -> Result<()> {
        let kind = frame["type"].as_str().context("a frame without type")?;
        let Some(validator) = self.0.get(&(sender, kind.to_owned())) else {
            bail!("docs/asyncapi.yaml has no message {kind:?} of {sender:?}: {frame}")
        };
        let errors: Vec<_> =
            validator.iter_errors(frame).map(|error| format!("{}: {error}", error.instance_path())).collect();
        ensure!(errors.is_empty(), "docs/asyncapi.yaml describes another {kind}: {}\n{frame}", errors.join("; "));
        Ok(())
    }
}

/// The key of each message in `components.messages`, and who sends it. What an operation receives comes from clients; what
/// it replies or sends comes from the server.
fn senders(page: &Value) -> Result<BTreeMap<String, Sender>> {
    let mut senders = BTreeMap::new();
    for (name, operation) in object(&page["operations"])? {
        let of_client = operation["action"] == "receive";
        let listed = [(&operation["messages"], of_client), (&operation["reply"]["messages"], false)];
        for (messages, of_client) in listed {
            let sender = if of_client { Sender::Client } else { Sender::Server };
            for message in messages.as_array().into_iter().flatten() {
                let reference = message["$ref"].as_str().with_context(|| format!("{name}: no $ref"))?;
                let key = reference.rsplit('/').next().unwrap_or_default().to_owned();
                let known = senders.insert(key, sender);
                ensure!(known.is_none_or(|known| known == sender), "{reference} is sent by both sides");
            }
        }
    }
    for key in object(&page["components"]["messages"])?.keys() {
        ensure!(senders.contains_key(key), "no operation has the message {key}");
    }
    Ok(senders)
}

fn constant_type(payload: &Value) -> Result<String> {
    Ok(payload["properties"]["type"]["const"].as_str().context("no constant type")?.to_owned())
}

fn object(value: &Value) -> Result<&Map<String, Value>> {
    value.as_object().context("not an object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_frame_than_the_described_one_is_refused() {
        check(Sender::Client, &json!({"type": "ping", "id": "1"})).unwrap();
        for wrong in [
            json!({"type": "ping", "more": 1}),
            json!({"type": "ping", "id": ""}),
            json!({"type": "pong"}),
            json!({"type": "session_open", "session_id": "no uuid"}),
            json!({"type": "history"}),
        ] {
            assert!(check(Sender::Client, &wrong).is_err(), "{wrong}");
        }
        check(Sender::Server, &json!({"type": "pong", "reply_to": "1"})).unwrap();
        assert!(check(Sender::Server, &json!({"type": "session_ready", "seq": 1})).is_err());
    }
}
