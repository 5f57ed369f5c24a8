//! Which script a request gets: its own one, in a header or in the user's message; else the next in the queue; else the one
//! for all others.

use std::collections::VecDeque;

use http::HeaderMap;
use parking_lot::Mutex;
use serde_json::Value;

use super::dialect::Dialect;
use super::json;
use super::random::Mix;
use super::script::Script;

/// The header with a request's own script.
const HEADER: &str = "x-mock-script";
/// The prefix of a user's message that holds a script.
const WORD: &str = "!mock ";

/// The scripts that wait for requests.
#[derive(Debug, Default)]
pub(super) struct Plan(Mutex<Scripts>);

#[derive(Debug, Default)]
struct Scripts {
    queue: VecDeque<Script>,
    others: Others,
}

/// What requests without a script get.
#[derive(Debug, Default)]
enum Others {
    #[default]
    Default,
    Always(Box<Script>),
    Random {
        seed: u64,
        mix: Mix,
        next: u64,
    },
}

impl Plan {
    pub(super) fn push(&self, script: Script) {
        self.0.lock().queue.push_back(script);
    }

    pub(super) fn always(&self, script: Script) {
        self.0.lock().others = Others::Always(Box::new(script));
    }

    pub(super) fn random(&self, seed: u64, mix: Mix) {
        self.0.lock().others = Others::Random { seed, mix, next: 0 };
    }

    pub(super) fn clear(&self) {
        *self.0.lock() = Scripts::default();
    }

    /// The script for a request, with a name; and the number of a random choice.
    ///
    /// # Errors
    /// Where its own script cannot be understood, or its script is of another protocol.
    pub(super) fn choose(
        &self,
        dialect: Dialect,
        headers: &HeaderMap,
        body: &Value,
    ) -> Result<(Script, Option<u64>), String> {
        let mut number = None;
        let mut script = if let Some(text) = headers.get(HEADER) {
            let text = String::from_utf8_lossy(text.as_bytes());
            json::script_text(&text)
                .map(|script| or_named(script, "header"))
                .map_err(|error| format!("{HEADER}: {error}"))
        } else if let Some(text) = said(dialect, body).and_then(|text| text.strip_prefix(WORD)) {
            json::script_text(text).map(|script| or_named(script, "message")).map_err(|error| format!("!mock: {error}"))
        } else {
            Ok(self.next(&mut number))
        }?;
        match script.only.take() {
            Some(only) if only != dialect => {
                Err(format!("`{}` is of {only:?}, and this request is of {dialect:?}", script.name))
            }
            _ => Ok((script, number)),
        }
    }

    fn next(&self, number: &mut Option<u64>) -> Script {
        let mut scripts = self.0.lock();
        if let Some(script) = scripts.queue.pop_front() {
            return or_named(script, "script");
        }
        match &mut scripts.others {
            Others::Default => Script::answer(["This is ", "the fake provider."]).named("default"),
            Others::Always(script) => or_named(Script::clone(script), "always"),
            Others::Random { seed, mix, next } => {
                let chosen = *next;
                *next += 1;
                *number = Some(chosen);
                mix.pick(*seed, chosen)
            }
        }
    }
}

fn or_named(script: Script, name: &str) -> Script {
    if script.name.is_empty() { script.named(name) } else { script }
}

/// The user's last message.
fn said(dialect: Dialect, body: &Value) -> Option<&str> {
    if dialect == Dialect::Dify {
        return body.get("query")?.as_str();
    }
    let messages = body.get("messages")?.as_array()?;
    let content = messages.iter().rfind(|message| message["role"] == "user")?.get("content")?;
    match content {
        Value::String(text) => Some(text),
        Value::Array(parts) => parts.iter().find_map(|part| part.get("text")?.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chosen(dialect: Dialect, body: &Value) -> Result<String, String> {
        let chosen = Plan::default().choose(dialect, &HeaderMap::new(), body);
        chosen.map(|(script, _)| script.name)
    }

    #[test]
    fn the_last_word_of_the_user_counts() {
        let (user, other) = (|text: &str| json!({"role": "user", "content": text}), json!({"role": "assistant"}));
        let of = |messages: &[Value]| chosen(Dialect::OpenAi, &json!({"messages": messages}));
        assert_eq!(of(&[user("!mock clean_eof")]).unwrap(), "clean_eof");
        assert_eq!(of(&[user("!mock clean_eof"), other, user("hello")]).unwrap(), "default");
        assert_eq!(of(&[user("say !mock clean_eof")]).unwrap(), "default");
        let parts = json!({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "!mock {\"name\": \"x\"}"}]});
        assert_eq!(chosen(Dialect::Anthropic, &json!({"messages": [parts]})).unwrap(), "x");
        assert_eq!(chosen(Dialect::Dify, &json!({"query": "!mock dify_agent_chat"})).unwrap(), "dify_agent_chat");
    }

    #[test]
    fn scripts_of_other_protocols_and_nonsense_are_refused() {
        let of = |text: &str| chosen(Dialect::OpenAi, &json!({"messages": [{"role": "user", "content": text}]}));
        assert!(of("!mock dify_agent_chat").unwrap_err().contains("is of Dify"));
        assert!(of("!mock {\"a\": 1}").unwrap_err().starts_with("!mock: unknown field `a`"));
    }
}
