//! The journal in JSON, without keys.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::journal::{Call, Journal};

/// Headers whose values are keys.
const SECRET: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// All calls, oldest first; times in milliseconds since the fake provider was started.
pub(super) fn journal(journal: &Journal) -> Value {
    let (first, calls) = journal.numbered();
    let since = |at: Instant| u64::try_from((at - journal.start()).as_millis()).unwrap_or(u64::MAX);
    calls.iter().enumerate().map(|(index, call)| one(first + index, call, &since)).collect()
}

fn one(number: usize, call: &Call, since: &dyn Fn(Instant) -> u64) -> Value {
    let headers: Map<String, Value> = call
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), json!(if SECRET.contains(&name.as_str()) { "[key]" } else { value })))
        .collect();
    json!({
        "number": number,
        "at_ms": since(call.at),
        "client_port": call.client_port,
        "method": call.method,
        "path": call.path,
        "query": call.query,
        "headers": headers,
        "body": call.body,
        "script": call.script,
        "random": call.random,
        "bytes_sent": call.bytes_sent,
        "sent": call.sent,
        "end": call.ended(),
        "end_ms": call.end.map(|(at, _)| since(at)),
    })
}
