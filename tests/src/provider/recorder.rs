//! Parses the bytes that are handed to a connection, as a client would, and records text, usage and end. Tests compare the
//! records of a client with it. It knows nothing of scripts, so it is right for raw bytes and cut events too.

use serde_json::Value;

use super::dialect::Dialect;
use super::journal::Sent;
use super::step::Usage;

/// The most text that is kept: an endless stream would fill the memory.
const TEXT_KEPT: usize = 8 << 20;
/// The longest line or reply that is parsed.
const LINE_READ: usize = 80 << 20;

/// The state of the parser of one body.
#[derive(Debug)]
pub(super) struct StreamRecorder {
    dialect: Dialect,
    /// Bytes after the last line end, or all of a whole reply.
    rest: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to the same line end.
    after_cr: bool,
    first_line: bool,
    /// The body is one JSON object.
    whole: Option<bool>,
    data: Option<String>,
    /// OpenAI's finish reason or the end of a workflow came: a clean end of the body now ends the answer.
    may_end: bool,
    /// A Dify agent: its closing `message` repeats the whole text.
    agent: bool,
}

impl StreamRecorder {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            rest: Vec::new(),
            after_cr: false,
            first_line: true,
            whole: None,
            data: None,
            may_end: false,
            agent: false,
        }
    }

    /// Reads further bytes.
    pub(super) fn read(&mut self, bytes: &[u8], sent: &mut Sent) {
        let whole = *self.whole.get_or_insert_with(|| bytes.first() == Some(&b'{'));
        if whole {
            self.keep(bytes);
            return;
        }
        let mut begin = 0;
        for (index, byte) in bytes.iter().enumerate() {
            let after_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            if *byte == b'\n' && after_cr {
                begin = index + 1;
            } else if matches!(byte, b'\r' | b'\n') {
                self.keep(&bytes[begin..index]);
                begin = index + 1;
                let line = std::mem::take(&mut self.rest);
                self.line(&line, sent);
            }
        }
        self.keep(&bytes[begin..]);
    }

    /// The body ended cleanly: the rest is parsed as if its blank line had come.
    pub(super) fn end(&mut self, sent: &mut Sent) {
        let rest = std::mem::take(&mut self.rest);
        if self.whole == Some(true) {
            if let Ok(reply) = serde_json::from_slice(&rest) {
                self.reply(&reply, sent);
            }
            return;
        }
        self.line(&rest, sent);
        self.line(b"", sent);
        sent.finished |= self.may_end;
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_READ.saturating_sub(self.rest.len());
        self.rest.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn line(&mut self, line: &[u8], sent: &mut Sent) {
        let mut line = String::from_utf8_lossy(line);
        if std::mem::take(&mut self.first_line)
            && let Some(unmarked) = line.strip_prefix('\u{feff}')
        {
            line = unmarked.to_owned().into();
        }
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                self.event(data.trim(), sent);
            }
        } else if let Some(value) = line.strip_prefix("data:") {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => data.extend(["\n", value]),
                none => *none = Some(value.to_owned()),
            }
        }
    }

    fn event(&mut self, data: &str, sent: &mut Sent) {
        if self.dialect == Dialect::OpenAi && data.starts_with("[DONE]") {
            sent.finished |= self.may_end;
        }
        let Ok(event) = serde_json::from_str(data) else { return };
        let event: Value = event;
        match self.dialect {
            Dialect::OpenAi => self.openai(&event, sent),
            Dialect::Anthropic => Self::anthropic(&event, sent),
            Dialect::Dify => self.dify(&event, sent),
        }
    }

    fn openai(&mut self, event: &Value, sent: &mut Sent) {
        sent.fault |= event.get("error").is_some_and(|error| !error.is_null());
        sent.fault |= text(event, "/object") == Some("error");
        for name in ["content", "refusal"] {
            append(sent, text(event, &format!("/choices/0/delta/{name}")));
        }
        self.may_end |= text(event, "/choices/0/finish_reason").is_some();
        if let Some(usage) = event.get("usage").filter(|usage| usage.is_object()) {
            sent.usage = Some(openai_usage(usage));
        }
    }

    fn anthropic(event: &Value, sent: &mut Sent) {
        match text(event, "/type") {
            Some("content_block_start") => append(sent, text(event, "/content_block/text")),
            Some("content_block_delta") => append(sent, text(event, "/delta/text")),
            // The numbers of `message_start` are no usage yet, but its input may not be repeated.
            Some("message_start") => sent.begun = event.pointer("/message/usage").map(anthropic_usage),
            Some("message_delta") => {
                if let Some(usage) = event.get("usage").filter(|usage| usage.get("output_tokens").is_some()) {
                    let told = anthropic_usage(usage);
                    let begun = sent.begun.filter(|_| usage.get("input_tokens").is_none()).unwrap_or(told);
                    sent.usage = Some(Usage { output: told.output, ..begun });
                }
            }
            Some("message_stop") => sent.finished = true,
            Some("error") => sent.fault = true,
            _ => {}
        }
    }

    fn dify(&mut self, event: &Value, sent: &mut Sent) {
        let answer = text(event, "/answer");
        match text(event, "/event") {
            Some("message") if !self.agent => append(sent, answer),
            Some("message_replace" | "message") => replace(sent, answer),
            Some("agent_message") => {
                self.agent = true;
                append(sent, answer);
            }
            Some("message_end") => {
                if let Some(usage) = event.pointer("/metadata/usage").filter(|usage| usage.is_object()) {
                    sent.usage = Some(openai_usage(usage));
                }
                sent.finished = true;
            }
            Some("workflow_finished") => {
                self.may_end =
                    matches!(text(event, "/data/status"), Some("succeeded" | "partial-succeeded" | "stopped"));
            }
            Some("error") => sent.fault = true,
            _ => {}
        }
    }

    /// A whole reply. A refusal has no text and ends no answer.
    fn reply(&self, reply: &Value, sent: &mut Sent) {
        let (told, usage) = match self.dialect {
            Dialect::OpenAi => (text(reply, "/choices/0/message/content"), reply.get("usage").map(openai_usage)),
            Dialect::Anthropic => (text(reply, "/content/0/text"), reply.get("usage").map(anthropic_usage)),
            Dialect::Dify => (text(reply, "/answer"), reply.pointer("/metadata/usage").map(openai_usage)),
        };
        append(sent, told);
        sent.finished = told.is_some();
        sent.usage = usage;
    }
}

fn text<'a>(json: &'a Value, pointer: &str) -> Option<&'a str> {
    json.pointer(pointer)?.as_str()
}

fn append(sent: &mut Sent, text: Option<&str>) {
    let room = TEXT_KEPT.saturating_sub(sent.text.len());
    let text = text.unwrap_or_default();
    sent.text += &text[..text.floor_char_boundary(room)];
}

fn replace(sent: &mut Sent, text: Option<&str>) {
    sent.text.clear();
    append(sent, text);
}

fn number(json: &Value, pointer: &str) -> u64 {
    json.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// Dify uses the same names.
fn openai_usage(usage: &Value) -> Usage {
    Usage {
        input: number(usage, "/prompt_tokens"),
        cached: number(usage, "/prompt_tokens_details/cached_tokens"),
        cache_written: 0,
        output: number(usage, "/completion_tokens"),
    }
}

fn anthropic_usage(usage: &Value) -> Usage {
    let (cached, cache_written) =
        (number(usage, "/cache_read_input_tokens"), number(usage, "/cache_creation_input_tokens"));
    let input = number(usage, "/input_tokens").saturating_add(cached).saturating_add(cache_written);
    Usage { input, cached, cache_written, output: number(usage, "/output_tokens") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dialect: Dialect, pieces: &[&str], ended: bool) -> Sent {
        let (mut recorder, mut sent) = (StreamRecorder::new(dialect), Sent::default());
        for piece in pieces {
            piece.bytes().for_each(|byte| recorder.read(&[byte], &mut sent));
        }
        if ended {
            recorder.end(&mut sent);
        }
        sent
    }

    #[test]
    fn text_counts_once_its_event_is_whole() {
        let chunk = |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let sent = read(Dialect::OpenAi, &[&chunk("a"), chunk("b").trim_end()], false);
        assert_eq!(sent.text, "a");
        assert_eq!(read(Dialect::OpenAi, &[&chunk("a"), chunk("b").trim_end()], true).text, "ab");
    }

    #[test]
    fn an_answer_of_openai_ends_with_a_reason_and_a_terminator() {
        let reason = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n";
        assert!(!read(Dialect::OpenAi, &["data: [DONE]\n\n"], true).finished);
        assert!(!read(Dialect::OpenAi, &[reason], false).finished);
        assert!(read(Dialect::OpenAi, &[reason], true).finished);
        assert!(read(Dialect::OpenAi, &[reason, "data: [DONE]\r\r"], false).finished);
    }

    #[test]
    fn the_input_of_anthropic_may_be_told_at_the_start() {
        let start = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\
            \"cache_read_input_tokens\":20,\"output_tokens\":1}}}\n\n";
        assert_eq!(read(Dialect::Anthropic, &[start], true).usage, None);
        let end = "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":7}}\n\n";
        let usage = Usage { input: 25, cached: 20, cache_written: 0, output: 7 };
        assert_eq!(read(Dialect::Anthropic, &[start, end], true).usage, Some(usage));
    }

    #[test]
    fn a_whole_reply_and_a_refusal_are_told_apart() {
        let sent = read(Dialect::Dify, &["{\"answer\":\"all\"}"], true);
        assert_eq!((sent.text.as_str(), sent.finished), ("all", true));
        assert!(!read(Dialect::Dify, &["{\"code\":\"forbidden\"}"], true).finished);
    }
}
