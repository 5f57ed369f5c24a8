//! The text of a conversation in a terminal. It is only appended, so that it reads the same in a file.

use std::fmt::Write as _;

use chatbox_client::{Entry, EntryState, Person, Role, Session};

/// The text to print, and the unfinished answer on its last line.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Text not printed yet.
    out: String,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    seq: u64,
    attempt: u64,
    shown: String,
}

impl Screen {
    /// The text since the last call.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.out)
    }

    /// Adds a line about the client itself.
    pub(super) fn note(&mut self, text: &str) {
        self.close();
        self.line(&format!("-- {text}"));
    }

    /// Adds lines unchanged.
    pub(super) fn text(&mut self, text: &str) {
        self.close();
        self.out.push_str(text);
    }

    /// Adds a session of a list.
    pub(super) fn session(&mut self, session: &Session, current: bool) {
        self.close();
        let mark = if current { "*" } else { " " };
        let at = session.last_activity_at.as_deref().unwrap_or("-");
        self.line(&format!("{mark} {}  {}  {at}  {}", session.id, session.state, session.name));
    }

    /// Adds a new entry, or the change of an entry. `me`: the user of this client.
    pub(super) fn entry(&mut self, entry: &Entry, me: &str) {
        if entry.sender.role != Role::Ai {
            self.close();
            match &entry.event {
                Some(event) => self.line(&format!("[{}] * {}", entry.seq, describe(event))),
                None => self.line(&format!("[{}] {}: {}", entry.seq, name(&entry.sender, me), entry.content)),
            }
            return;
        }
        self.answer(entry);
        if entry.state != EntryState::Streaming {
            self.close();
            self.line(&ending(entry));
        }
    }

    /// Adds the rest of an answer that has grown, or the whole answer if its text was replaced.
    fn answer(&mut self, entry: &Entry) {
        let has_grown = self.open.as_ref().is_some_and(|open| {
            open.seq == entry.seq && open.attempt == entry.attempt && entry.content.starts_with(&open.shown)
        });
        if !has_grown {
            self.close();
            let again = if entry.attempt > 1 { format!(" (attempt {})", entry.attempt) } else { String::new() };
            let _ = write!(self.out, "[{}] ai{again}: ", entry.seq);
        }
        let shown = self.open.as_ref().map_or(0, |open| open.shown.len());
        self.out.push_str(&indent(&entry.content[shown..]));
        self.open = Some(Open { seq: entry.seq, attempt: entry.attempt, shown: entry.content.clone() });
    }

    /// Ends the line of an unfinished answer. The answer continues on a new line.
    fn close(&mut self) {
        if self.open.take().is_some() {
            self.out.push('\n');
        }
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(&indent(text));
        self.out.push('\n');
    }
}

fn name(person: &Person, me: &str) -> String {
    if person.id.as_deref() == Some(me) {
        return "you".to_owned();
    }
    let name = person.name.as_deref().or(person.id.as_deref()).unwrap_or("somebody");
    if person.role == Role::Admin { format!("{name} (human)") } else { name.to_owned() }
}

fn describe(event: &serde_json::Value) -> String {
    // An event is a name, or an object of the name and its fields.
    match event.as_str() {
        Some(text) => text.to_owned(),
        None => event.to_string(),
    }
}

fn ending(entry: &Entry) -> String {
    let mut parts = Vec::new();
    match &entry.error {
        Some(error) if entry.state == EntryState::Failed => {
            let again = match &error.retry_at {
                Some(at) => format!(", retry after {at}"),
                None if error.retryable => ", can be retried".to_owned(),
                None => String::new(),
            };
            parts.push(format!("failed: {}{again}", error.code));
        }
        _ => parts.extend(entry.finish_reason.clone()),
    }
    parts.extend(entry.model_id.clone());
    parts.extend(entry.usage.as_ref().map(|usage| {
        let about = if usage.estimated { "about " } else { "" };
        format!("{about}{} tokens", usage.output_tokens)
    }));
    format!("    ({})", parts.join("; "))
}

/// Text of other people: indents its further lines, and escapes characters that move the cursor or change the direction of
/// the text.
fn indent(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\n    "),
            '\t' => safe.push('\t'),
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                let _ = write!(safe, "\\u{:04x}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(content: &str, attempt: u64, state: &str) -> Entry {
        serde_json::from_value(json!({
            "seq": 2, "rev": 1, "id": "m", "state": state, "sender": { "role": "ai" }, "content": content, "attempt": attempt,
            "finish_reason": "stop", "model_id": "demo", "usage": { "input_tokens": 1, "output_tokens": 3, "estimated": true },
        }))
        .unwrap()
    }

    fn said(seq: u64, role: &str, id: &str, content: &str) -> Entry {
        serde_json::from_value(
            json!({ "seq": seq, "rev": 1, "id": "m", "sender": { "role": role, "id": id }, "content": content }),
        )
        .unwrap()
    }

    #[test]
    fn an_answer_grows_on_its_line() {
        let mut screen = Screen::default();
        screen.entry(&said(1, "user", "me", "hi"), "me");
        for (content, state) in [("", "streaming"), ("Hel", "streaming"), ("Hello", "streaming"), ("Hello!", "final")] {
            screen.entry(&answer(content, 1, state), "me");
        }
        assert_eq!(screen.take(), "[1] you: hi\n[2] ai: Hello!\n    (stop; demo; about 3 tokens)\n");
        assert_eq!(screen.take(), "");
    }

    #[test]
    fn an_entry_between_two_deltas_gets_its_own_line() {
        let mut screen = Screen::default();
        screen.entry(&answer("Hel", 1, "streaming"), "me");
        screen.entry(&said(3, "admin", "Ann", "wait"), "me");
        screen.entry(&answer("Hello", 1, "streaming"), "me");
        assert_eq!(screen.take(), "[2] ai: Hel\n[3] Ann (human): wait\n[2] ai: Hello");
    }

    #[test]
    fn a_new_attempt_and_a_replaced_text_are_printed_whole() {
        let mut screen = Screen::default();
        screen.entry(&answer("Hel", 1, "streaming"), "me");
        screen.entry(&answer("", 2, "streaming"), "me");
        screen.entry(&answer("Good", 2, "streaming"), "me");
        screen.entry(&answer("Bad", 2, "final"), "me");
        assert_eq!(
            screen.take(),
            "[2] ai: Hel\n[2] ai (attempt 2): Good\n[2] ai (attempt 2): Bad\n    (stop; demo; about 3 tokens)\n"
        );
    }

    #[test]
    fn a_failed_answer_has_its_error() {
        let mut screen = Screen::default();
        let mut failed = answer("Hel", 1, "failed");
        failed.error = serde_json::from_value(json!({ "code": "provider_timeout", "retryable": true })).unwrap();
        screen.entry(&failed, "me");
        assert!(screen.take().contains("(failed: provider_timeout, can be retried; demo;"));
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut screen = Screen::default();
        screen.entry(&said(1, "user", "\u{1b}[2Jx", "a\u{1b}[31m\r\u{202e}\nb\tc"), "me");
        assert_eq!(screen.take(), "[1] \\u001b[2Jx: a\\u001b[31m\\u000d\\u202e\n    b\tc\n");
    }
}
