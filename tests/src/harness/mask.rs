//! Replaces ids and times in raw frames by names, so that the text is the same in every run. Everything else stays byte for
//! byte.

use std::collections::HashMap;

/// The names of the values that change from run to run. One per test, so that an id has the same name everywhere.
#[derive(Debug, Default)]
pub struct Mask {
    names: HashMap<String, String>,
}

impl Mask {
    /// Gives `value` a name; it is shown as `<name>`.
    pub fn name(&mut self, value: &str, name: &str) {
        self.names.insert(value.to_owned(), format!("<{name}>"));
    }

    /// The text with named values, UUIDs, error ids, times and durations replaced.
    pub fn apply(&self, raw: &str) -> String {
        let mut masked = String::with_capacity(raw.len());
        let mut rest = raw;
        while let Some(start) = rest.find('"') {
            let Some(length) = string_length(&rest[start..]) else { break };
            masked.push_str(&rest[..start]);
            let text = &rest[start + 1..start + length - 1];
            masked.push('"');
            masked.push_str(&self.value(text));
            masked.push('"');
            rest = &rest[start + length..];
            if matches!(text, "first_token" | "total" | "server_time") {
                rest = mask_number(rest, &mut masked);
            }
        }
        masked.push_str(rest);
        masked
    }

    fn value(&self, text: &str) -> String {
        if let Some(name) = self.names.get(text) {
            return name.clone();
        }
        if is_uuid(text) {
            return "<uuid>".to_owned();
        }
        if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return "<error>".to_owned();
        }
        if is_time(text) {
            return "<time>".to_owned();
        }
        text.to_owned()
    }
}

/// The length of the JSON string that `text` begins with, quotes included.
fn string_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(index + 1),
            _ => {}
        }
    }
    None
}

fn mask_number<'a>(rest: &'a str, masked: &mut String) -> &'a str {
    let Some(number) = rest.strip_prefix(':') else { return rest };
    let after = number.trim_start_matches(|byte: char| byte.is_ascii_digit());
    if after.len() == number.len() {
        return rest;
    }
    masked.push_str(":<ms>");
    after
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

/// RFC 3339 in UTC with milliseconds.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_times_and_durations_change() {
        let mut mask = Mask::default();
        mask.name("0198c0de-0000-7000-8000-000000000001", "session");
        let raw = r#"{"a":"0198c0de-0000-7000-8000-000000000001","b":"0198c0de-0000-7000-8000-000000000002","t":"2026-11-22T20:14:17.123Z","n":7,"first_token":12,"s":"\"0\\","total":3}"#;
        let masked = r#"{"a":"<session>","b":"<uuid>","t":"<time>","n":7,"first_token":<ms>,"s":"\"0\\","total":<ms>}"#;
        assert_eq!(mask.apply(raw), masked);
    }
}
