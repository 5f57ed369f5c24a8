//! Scripts in JSON: from the admin endpoint, from a request header, and from chat messages. An unknown or invalid field is
//! an error that names the field.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::fault::{Fault, Retry};
use super::format::SseFormat;
use super::presets::preset;
use super::random::Mix;
use super::script::{Head, Script};
use super::step::Step;

/// The longest time in a script: one day, in milliseconds.
const LONGEST: u64 = 86_400_000;
/// The fields of a script, as the documentation lists them.
pub(super) const FIELDS: [&str; 22] = [
    "name",
    "preset",
    "text",
    "whole",
    "body",
    "refuse",
    "steps",
    "head",
    "head_after_ms",
    "status",
    "content_type",
    "headers",
    "retry",
    "pace_ms",
    "format",
    "split",
    "cut_at",
    "reset_at",
    "gzip",
    "close_delimited",
    "ignore_stop",
    "then",
];

/// One script: an object, or the name of a preset.
///
/// # Errors
/// The text names the field and the problem.
pub fn script(value: &Value) -> Result<Script, String> {
    match value {
        Value::String(name) => named(name),
        Value::Object(fields) => Fields(fields.clone()).script(),
        _ => Err("a script is an object or the name of a preset".to_owned()),
    }
}

/// One script as JSON text, or the name of a preset without quotes.
///
/// # Errors
/// The text names the field and the problem.
pub fn script_text(text: &str) -> Result<Script, String> {
    let text = text.trim();
    if text.starts_with(['{', '"', '[']) {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("invalid JSON: {error}"))?;
        return script(&value);
    }
    named(text)
}

/// Several scripts: an array, or a single script.
pub(super) fn scripts(value: &Value) -> Result<Vec<Script>, String> {
    match value {
        Value::Array(list) => {
            let each = list.iter().enumerate();
            each.map(|(index, value)| script(value).map_err(|error| format!("[{index}]: {error}"))).collect()
        }
        one => Ok(vec![script(one)?]),
    }
}

/// `{"seed": 1, "faults": {..}}`.
pub(super) fn random(value: &Value) -> Result<(u64, Mix), String> {
    let Value::Object(fields) = value else { return Err("must be an object with `seed`".to_owned()) };
    let mut fields = Fields(fields.clone());
    let seed = fields.take("seed")?.ok_or("`seed` is missing")?;
    let mix: Mix = fields.take("faults")?.unwrap_or_default();
    fields.done(&["seed", "faults"])?;
    mix.check().map_err(|error| format!("faults: {error}"))?;
    Ok((seed, mix))
}

fn named(name: &str) -> Result<Script, String> {
    preset(name).ok_or_else(|| format!("unknown preset `{name}`: GET /mock/presets lists the presets"))
}

/// The fields that are not read yet.
struct Fields(Map<String, Value>);

impl Fields {
    fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, String> {
        self.0.remove(name).map(|value| read(name, value)).transpose()
    }

    fn flag(&mut self, name: &str) -> Result<bool, String> {
        Ok(self.take(name)?.unwrap_or_default())
    }

    fn done(self, known: &[&str]) -> Result<(), String> {
        match self.0.keys().next() {
            Some(name) => Err(format!("unknown field `{name}`; the fields are: {}", known.join(", "))),
            None => Ok(()),
        }
    }

    /// At most one field is the base of the script. The others change the base.
    fn script(mut self) -> Result<Script, String> {
        let mut script = self.base()?;
        if let Some(name) = self.take::<String>("name")? {
            script.name = name;
        }
        if let Some(status) = self.take("status")? {
            let known = (200..=999).contains(&status);
            script = if known {
                script.with_status(status)
            } else {
                return Err("status: must be from 200 to 999".to_owned());
            };
        }
        match self.take::<String>("head")?.as_deref() {
            None => {}
            Some("reply") => script = script.replying(),
            Some("close") => script.head = Head::Close,
            Some("reset") => script.head = Head::Reset,
            Some("stall") => script.head = Head::Stall,
            Some(other) => return Err(format!("head: `{other}` is not one of reply, close, reset, stall")),
        }
        if let Some(value) = self.0.remove("content_type") {
            let value: Option<String> = read("content_type", value)?;
            script = script.content_type(value.as_deref());
        }
        for (name, value) in self.take::<BTreeMap<String, String>>("headers")?.unwrap_or_default() {
            if http::HeaderName::try_from(&name).is_err() || http::HeaderValue::try_from(&value).is_err() {
                return Err(format!("headers.{name}: not a valid header"));
            }
            script = script.header(&name, &value);
        }
        self.with_delivery(script)
    }

    fn base(&mut self) -> Result<Script, String> {
        let kinds = ["preset", "text", "whole", "body", "refuse", "steps"];
        let given: Vec<&str> = kinds.into_iter().filter(|kind| self.0.contains_key(*kind)).collect();
        if let [one, other, ..] = given[..] {
            return Err(format!("`{one}` and `{other}` exclude each other"));
        }
        if let Some(name) = self.take::<String>("preset")? {
            return named(&name).map_err(|error| format!("preset: {error}"));
        }
        if let Some(text) = self.take::<Vec<String>>("text")? {
            return Ok(Script::answer(text));
        }
        if let Some(text) = self.take::<String>("whole")? {
            return Ok(Script::whole(text));
        }
        if let Some(body) = self.take::<String>("body")? {
            return Ok(Script::body(200, "text/plain", body));
        }
        if let Some(fault) = self.take::<Fault>("refuse")? {
            let known = fault.status.is_none_or(|status| (200..=999).contains(&status));
            return if known {
                Ok(Script::refuse(fault))
            } else {
                Err("refuse.status: must be from 200 to 999".to_owned())
            };
        }
        match self.0.remove("steps") {
            Some(steps) => Ok(Script::steps(read::<Vec<Step>>("steps", steps)?)),
            None => Ok(Script::answer(["This is ", "the fake provider."])),
        }
    }

    fn with_delivery(mut self, mut script: Script) -> Result<Script, String> {
        if let Some(steps) = self.0.remove("then") {
            script.steps.extend(read::<Vec<Step>>("then", steps)?);
        }
        if let Some(time) = self.time("pace_ms")? {
            script = script.paced(time);
        }
        if let Some(time) = self.time("head_after_ms")? {
            script.head_after = time;
        }
        if let Some(retry) = self.take::<Retry>("retry")? {
            script.retry = retry;
        }
        if let Some(format) = self.take::<SseFormat>("format")? {
            script.format = format;
        }
        match self.take("split")? {
            Some(0) => return Err("split: must be at least 1".to_owned()),
            Some(size) => script = script.split_every(size),
            None => {}
        }
        if let Some(bytes) = self.take("cut_at")? {
            script = script.cut_at(bytes);
        }
        if let Some(bytes) = self.take("reset_at")? {
            script = script.reset_at(bytes);
        }
        if self.flag("gzip")? {
            script = script.gzip();
        }
        script.close_delimited |= self.flag("close_delimited")?;
        script.ignores_stop |= self.flag("ignore_stop")?;
        self.done(&FIELDS)?;
        Ok(script)
    }

    fn time(&mut self, name: &str) -> Result<Option<Duration>, String> {
        let time = self.take(name)?.map(|time| limited(time).map_err(|error| format!("{name}: {error}")));
        time.transpose()
    }
}

/// Reads a value. An error names the path of the field.
fn read<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = error.path().to_string();
        let path = match inner.as_str() {
            "." => name.to_owned(),
            index if index.starts_with('[') => format!("{name}{index}"),
            field => format!("{name}.{field}"),
        };
        format!("{path}: {}", error.inner())
    })
}

fn limited(millis: u64) -> Result<Duration, String> {
    if millis > LONGEST { Err(format!("must be at most {LONGEST} ms")) } else { Ok(Duration::from_millis(millis)) }
}

/// Deserializes milliseconds.
pub(super) fn millis<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    limited(u64::deserialize(input)?).map_err(D::Error::custom)
}

/// Deserializes the size of a huge line.
pub(super) fn mib<'de, D: Deserializer<'de>>(input: D) -> Result<u32, D::Error> {
    match u32::deserialize(input)? {
        mib @ 1..=64 => Ok(mib),
        _ => Err(D::Error::custom("must be from 1 to 64 MiB")),
    }
}

/// Deserializes a text, or bytes in base64.
pub(super) fn bytes<'de, D: Deserializer<'de>>(input: D) -> Result<Bytes, D::Error> {
    match Value::deserialize(input)? {
        Value::String(text) => Ok(text.into()),
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("base64") => {
            let text = fields["base64"].as_str().ok_or_else(|| D::Error::custom("base64: must be a string"))?;
            STANDARD.decode(text).map(Bytes::from).map_err(|error| D::Error::custom(format!("base64: {error}")))
        }
        _ => Err(D::Error::custom("must be a string or {\"base64\": \"..\"}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        script_text(text).map(|script| format!("{script:?}")).unwrap_err()
    }

    #[test]
    fn every_field_and_step_is_read() {
        let text = r#"{"name": "n", "head": "reply", "head_after_ms": 1, "status": 200, "content_type": "text/html",
            "headers": {"x-a": "b"}, "retry": {"after": "0.5", "date_in": -5, "after_ms": "x", "should_retry": true},
            "pace_ms": 1, "split": 3, "cut_at": 100, "gzip": true, "close_delimited": true, "ignore_stop": true,
            "format": {"line_end": "cr_lf", "bom": true, "comments": ["c"], "unknown_events": true, "multi_line": true,
                "space": "two", "escaped": true, "tail": "no_line_end"},
            "steps": ["begin", {"begin_with": {"input": 5}}, {"delta": "t"}, {"reasoning": {"text": "r"}}, "keep_alive",
                {"keep_alives": {"every_ms": 1, "count": 2}}, {"stamps": {"every_ms": 1, "count": 1}},
                {"endless": {"every_ms": 0}}, {"huge_line": {"mib": 1}}, {"finish": {"input": 1, "output": 2}},
                "finish_without_usage", {"finish_with": {"usage": {"input": 9, "cached": 4, "output": 1},
                    "reason": "length", "text": "t", "unterminated": true}},
                {"fault": {"form": "flat", "type": "t", "done": true}}, {"event": {"name": "n", "data": {"a": 1}}},
                {"chunk": {"choices": []}}, {"dify": {"event": "message", "with": {"answer": "a"}}}, {"whole": "w"},
                {"wait_ms": 1}, "stall", "cut", "reset", "half_close", {"bytes": "b"}, {"bytes": {"base64": "/w=="}}],
            "then": [{"delta": "x"}]}"#;
        let script = script_text(text).unwrap();
        assert_eq!((script.name.as_str(), script.steps.len()), ("n", 25 * 2 - 1));
        assert!(script.gzip && script.close_delimited && script.ignores_stop);
    }

    #[test]
    fn a_head_can_be_changed_both_ways() {
        let head = |text| script_text(text).unwrap().head;
        assert_eq!(head(r#"{"preset": "reset_before_head", "head": "reply"}"#), Head::Reply(http::StatusCode::OK));
        assert_eq!(
            head(r#"{"refuse": {"status": 503}, "head": "reply"}"#),
            Head::Reply(http::StatusCode::SERVICE_UNAVAILABLE)
        );
        assert_eq!(head(r#"{"status": 503, "head": "close"}"#), Head::Close);
        assert_eq!(head("stall_before_head"), Head::Stall);
    }

    #[test]
    fn invalid_fields_are_named() {
        for (text, parts) in [
            ("nonsense", &["unknown preset `nonsense`", "/mock/presets"][..]),
            ("{", &["invalid JSON"]),
            ("[]", &["an object or the name"]),
            (r#"{"stesp": []}"#, &["unknown field `stesp`", "steps"]),
            (r#"{"steps": ["begin", "bgin"]}"#, &["steps[1]", "unknown variant `bgin`"]),
            (r#"{"steps": [{"finish": {"input": "x", "output": 1}}]}"#, &["steps[0].finish.input", "invalid type"]),
            (r#"{"steps": [{"finish": {"input": 1}}]}"#, &["steps[0]", "missing field `output`"]),
            (r#"{"steps": [{"wait_ms": 99999999999}]}"#, &["steps[0]", "at most"]),
            (r#"{"steps": [{"huge_line": {"mib": 4000000}}]}"#, &["steps[0].huge_line.mib", "1 to 64"]),
            (r#"{"steps": ["hold"]}"#, &["steps[0]", "unknown variant `hold`"]),
            (r#"{"steps": [{"bytes": {"base64": "?"}}]}"#, &["steps[0]", "base64"]),
            (r#"{"format": {"bom": 3}}"#, &["format.bom", "invalid type"]),
            (r#"{"format": {"bomb": true}}"#, &["format", "unknown field `bomb`"]),
            (r#"{"refuse": {"status": 99}}"#, &["refuse.status"]),
            (r#"{"status": 70000}"#, &["status", "70000"]),
            (r#"{"status": 100}"#, &["status"]),
            (r#"{"split": 0}"#, &["split"]),
            (r#"{"split": -1}"#, &["split", "-1"]),
            (r#"{"headers": {"a b": "c"}}"#, &["headers.a b"]),
            (r#"{"head": "off"}"#, &["head", "off"]),
            (r#"{"text": ["a"], "whole": "b"}"#, &["`text` and `whole`"]),
            (r#"{"preset": "nonsense"}"#, &["preset", "nonsense"]),
        ] {
            let error = refused(text);
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
        let deep = format!("{{\"steps\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(refused(&deep).contains("recursion"));
    }

    #[test]
    fn a_preset_can_be_changed() {
        let script = script_text(r#"{"preset": "clean_eof", "split": 1, "name": "mine"}"#).unwrap();
        assert_eq!((script.name.as_str(), script.split), ("mine", Some(1)));
        assert_eq!(script_text("clean_eof").unwrap().name, "clean_eof");
    }
}
