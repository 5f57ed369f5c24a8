//! The SSE encoding of a stream: line ends, comments, spaces, the last blank line. A correct client reads the same events
//! from every format.

use serde::Deserialize;
use serde_json::Value;

use super::dialect::Names;
use super::event::Event;

/// How a stream is encoded. The default is the plain form. Bytes that a script sends as they are ([`super::Step::Bytes`])
/// stay as they are; only the byte order mark is sent before them too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SseFormat {
    /// What a line ends with.
    pub line_end: LineEnd,
    /// The stream begins with the byte order mark EF BB BF.
    pub bom: bool,
    /// Comments: one before each event, in turn.
    pub comments: Vec<String>,
    /// An event of an unknown kind before each event.
    pub unknown_events: bool,
    /// Each JSON object takes several `data:` lines.
    pub multi_line: bool,
    /// What stands between `data:` and its value.
    pub space: Space,
    /// Characters beyond ASCII are written as `\uXXXX`.
    pub escaped: bool,
    /// How the last event of the stream ends.
    pub tail: Tail,
}

/// What a line ends with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineEnd {
    /// `\n`
    #[default]
    Lf,
    /// `\r\n`
    CrLf,
    /// `\r`
    Cr,
}

/// What stands between `data:` and its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// One space.
    #[default]
    One,
    /// Nothing.
    None,
    /// Two spaces, of which the second belongs to the value.
    Two,
}

/// How the last event ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tail {
    /// With its blank line.
    #[default]
    Whole,
    /// Without the blank line.
    NoBlankLine,
    /// Without any line end.
    NoLineEnd,
}

impl LineEnd {
    fn text(self) -> &'static str {
        match self {
            Self::Lf => "\n",
            Self::CrLf => "\r\n",
            Self::Cr => "\r",
        }
    }
}

/// Encodes the events of one stream.
#[derive(Debug)]
pub(super) struct SseWriter {
    format: SseFormat,
    begun: bool,
    comments: usize,
}

impl SseWriter {
    pub(super) fn new(format: SseFormat) -> Self {
        Self { format, begun: false, comments: 0 }
    }

    /// The byte order mark, if the format has one and this is the beginning.
    pub(super) fn mark(&mut self) -> &'static str {
        let first = !std::mem::replace(&mut self.begun, true);
        if first && self.format.bom { "\u{feff}" } else { "" }
    }

    /// Encodes events. `last`: no events follow.
    pub(super) fn write(&mut self, events: &[Event], names: &Names, last: bool) -> String {
        let mut text = String::new();
        if events.is_empty() {
            return text;
        }
        text += self.mark();
        let end = self.format.line_end.text();
        for (index, event) in events.iter().enumerate() {
            if !self.format.comments.is_empty() {
                text += &format!(": {}{end}{end}", self.format.comments[self.comments % self.format.comments.len()]);
                self.comments += 1;
            }
            if self.format.unknown_events && matches!(event, Event::Data { .. }) {
                self.event(&names.unknown(), &mut text);
                text += end;
            }
            self.event(event, &mut text);
            match self.format.tail {
                Tail::NoBlankLine if last && index + 1 == events.len() => {}
                Tail::NoLineEnd if last && index + 1 == events.len() => text.truncate(text.len() - end.len()),
                _ => text += end,
            }
        }
        text
    }

    /// An event without its blank line.
    fn event(&self, event: &Event, text: &mut String) {
        let end = self.format.line_end.text();
        let (name, data) = match event {
            Event::Comment(comment) => {
                *text += &format!(": {comment}{end}");
                return;
            }
            Event::Data { name, data } => (name, data),
        };
        if let Some(name) = name {
            *text += &format!("event: {name}{end}");
        }
        let Some(data) = data else { return };
        let space = match self.format.space {
            Space::One => " ",
            Space::None => "",
            Space::Two => "  ",
        };
        let data = if self.format.multi_line { spread(data) } else { data.clone() };
        let data = if self.format.escaped { escaped(&data) } else { data };
        for line in data.split('\n') {
            *text += &format!("data:{space}{line}{end}");
        }
    }
}

/// JSON over several lines; other text stays as it is.
fn spread(data: &str) -> String {
    let json: Result<Value, _> = serde_json::from_str(data);
    json.and_then(|json| serde_json::to_string_pretty(&json)).unwrap_or_else(|_| data.to_owned())
}

/// In JSON, characters beyond ASCII stand only in strings, so each may be replaced where it is.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text += &format!("\\u{unit:04x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::dialect::Dialect;
    use super::*;

    fn written(format: SseFormat, events: &[Event]) -> String {
        let names = Names::new(Dialect::OpenAi, &json!({}), 0);
        SseWriter::new(format).write(events, &names, true)
    }

    #[test]
    fn every_format_is_exact() {
        let event = || [Event::named("n", r#"{"a":"é😀"}"#)];
        let format = SseFormat::default;
        for (format, text) in [
            (format(), "event: n\ndata: {\"a\":\"é😀\"}\n\n"),
            (SseFormat { line_end: LineEnd::CrLf, ..format() }, "event: n\r\ndata: {\"a\":\"é😀\"}\r\n\r\n"),
            (SseFormat { line_end: LineEnd::Cr, ..format() }, "event: n\rdata: {\"a\":\"é😀\"}\r\r"),
            (SseFormat { bom: true, ..format() }, "\u{feff}event: n\ndata: {\"a\":\"é😀\"}\n\n"),
            (SseFormat { comments: vec!["c".into()], ..format() }, ": c\n\nevent: n\ndata: {\"a\":\"é😀\"}\n\n"),
            (SseFormat { multi_line: true, ..format() }, "event: n\ndata: {\ndata:   \"a\": \"é😀\"\ndata: }\n\n"),
            (SseFormat { space: Space::None, ..format() }, "event: n\ndata:{\"a\":\"é😀\"}\n\n"),
            (SseFormat { space: Space::Two, ..format() }, "event: n\ndata:  {\"a\":\"é😀\"}\n\n"),
            (SseFormat { escaped: true, ..format() }, "event: n\ndata: {\"a\":\"\\u00e9\\ud83d\\ude00\"}\n\n"),
            (SseFormat { tail: Tail::NoBlankLine, ..format() }, "event: n\ndata: {\"a\":\"é😀\"}\n"),
            (
                SseFormat { tail: Tail::NoLineEnd, line_end: LineEnd::CrLf, ..format() },
                "event: n\r\ndata: {\"a\":\"é😀\"}",
            ),
        ] {
            assert_eq!(written(format.clone(), &event()), text, "{format:?}");
        }
    }

    #[test]
    fn comments_and_unknown_events_come_before_each_event() {
        let format = SseFormat { comments: vec!["a".into(), "b".into()], unknown_events: true, ..SseFormat::default() };
        let text = written(format, &[Event::data("1"), Event::Comment("own".into())]);
        let unknown = "event: fake.unknown\ndata: {\"object\":\"fake.unknown\"}\n\n";
        assert_eq!(text, format!(": a\n\n{unknown}data: 1\n\n: b\n\n: own\n\n"));
    }

    #[test]
    fn the_mark_comes_once() {
        let names = Names::new(Dialect::OpenAi, &json!({}), 0);
        let mut writer = SseWriter::new(SseFormat { bom: true, ..SseFormat::default() });
        assert_eq!(writer.mark(), "\u{feff}");
        assert_eq!(writer.write(&[Event::data("1")], &names, false), "data: 1\n\n");
    }
}
