//! How a stream is written down: line ends, comments, spaces, the last blank line. All of these are the same stream to a
//! client that reads as it should.

use serde::Deserialize;
use serde_json::Value;

use super::dialect::Names;
use super::event::Event;

/// The ways in which one stream can be written. The default is the plainest one. Bytes that a script sends as they are
/// ([`super::Step::Bytes`]) are not dressed, except that the mark of `bom` goes before them too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dress {
    /// What a line ends with.
    pub line_end: LineEnd,
    /// The stream begins with the byte order mark EF BB BF.
    pub bom: bool,
    /// Comments; before each event comes the next of them, in a circle.
    pub comments: Vec<String>,
    /// Before each event comes one of a kind that the protocol does not have.
    pub unknown_events: bool,
    /// Each JSON object is spread over several `data:` lines.
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

/// Dresses the events of one stream.
#[derive(Debug)]
pub(super) struct Tailor {
    dress: Dress,
    begun: bool,
    comments: usize,
}

impl Tailor {
    pub(super) fn new(dress: Dress) -> Self {
        Self { dress, begun: false, comments: 0 }
    }

    /// The mark at the very beginning, if there is to be one and it was not yet written.
    pub(super) fn mark(&mut self) -> &'static str {
        let first = !std::mem::replace(&mut self.begun, true);
        if first && self.dress.bom { "\u{feff}" } else { "" }
    }

    /// These events as text; `last` says that nothing follows them.
    pub(super) fn write(&mut self, events: &[Event], names: &Names, last: bool) -> String {
        let mut text = String::new();
        if events.is_empty() {
            return text;
        }
        text += self.mark();
        let end = self.dress.line_end.text();
        for (index, event) in events.iter().enumerate() {
            if !self.dress.comments.is_empty() {
                text += &format!(": {}{end}{end}", self.dress.comments[self.comments % self.dress.comments.len()]);
                self.comments += 1;
            }
            if self.dress.unknown_events && matches!(event, Event::Data { .. }) {
                self.event(&names.unknown(), &mut text);
                text += end;
            }
            self.event(event, &mut text);
            match self.dress.tail {
                Tail::NoBlankLine if last && index + 1 == events.len() => {}
                Tail::NoLineEnd if last && index + 1 == events.len() => text.truncate(text.len() - end.len()),
                _ => text += end,
            }
        }
        text
    }

    /// An event without its blank line.
    fn event(&self, event: &Event, text: &mut String) {
        let end = self.dress.line_end.text();
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
        let space = match self.dress.space {
            Space::One => " ",
            Space::None => "",
            Space::Two => "  ",
        };
        let data = if self.dress.multi_line { spread(data) } else { data.clone() };
        let data = if self.dress.escaped { escaped(&data) } else { data };
        for line in data.split('\n') {
            *text += &format!("data:{space}{line}{end}");
        }
    }
}

/// JSON over several lines; what is no JSON stays as it is.
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

    fn written(dress: Dress, events: &[Event]) -> String {
        let names = Names::new(Dialect::OpenAi, &json!({}), 0);
        Tailor::new(dress).write(events, &names, true)
    }

    #[test]
    fn every_dress_is_exact() {
        let event = || [Event::named("n", r#"{"a":"é😀"}"#)];
        let dress = Dress::default;
        for (dress, text) in [
            (dress(), "event: n\ndata: {\"a\":\"é😀\"}\n\n"),
            (Dress { line_end: LineEnd::CrLf, ..dress() }, "event: n\r\ndata: {\"a\":\"é😀\"}\r\n\r\n"),
            (Dress { line_end: LineEnd::Cr, ..dress() }, "event: n\rdata: {\"a\":\"é😀\"}\r\r"),
            (Dress { bom: true, ..dress() }, "\u{feff}event: n\ndata: {\"a\":\"é😀\"}\n\n"),
            (Dress { comments: vec!["c".into()], ..dress() }, ": c\n\nevent: n\ndata: {\"a\":\"é😀\"}\n\n"),
            (Dress { multi_line: true, ..dress() }, "event: n\ndata: {\ndata:   \"a\": \"é😀\"\ndata: }\n\n"),
            (Dress { space: Space::None, ..dress() }, "event: n\ndata:{\"a\":\"é😀\"}\n\n"),
            (Dress { space: Space::Two, ..dress() }, "event: n\ndata:  {\"a\":\"é😀\"}\n\n"),
            (Dress { escaped: true, ..dress() }, "event: n\ndata: {\"a\":\"\\u00e9\\ud83d\\ude00\"}\n\n"),
            (Dress { tail: Tail::NoBlankLine, ..dress() }, "event: n\ndata: {\"a\":\"é😀\"}\n"),
            (Dress { tail: Tail::NoLineEnd, line_end: LineEnd::CrLf, ..dress() }, "event: n\r\ndata: {\"a\":\"é😀\"}"),
        ] {
            assert_eq!(written(dress.clone(), &event()), text, "{dress:?}");
        }
    }

    #[test]
    fn comments_and_unknown_events_come_before_each_event() {
        let dress = Dress { comments: vec!["a".into(), "b".into()], unknown_events: true, ..Dress::default() };
        let text = written(dress, &[Event::data("1"), Event::Comment("own".into())]);
        let unknown = "event: double.news\ndata: {\"object\":\"double.news\"}\n\n";
        assert_eq!(text, format!(": a\n\n{unknown}data: 1\n\n: b\n\n: own\n\n"));
    }

    #[test]
    fn the_mark_comes_once() {
        let names = Names::new(Dialect::OpenAi, &json!({}), 0);
        let mut tailor = Tailor::new(Dress { bom: true, ..Dress::default() });
        assert_eq!(tailor.mark(), "\u{feff}");
        assert_eq!(tailor.write(&[Event::data("1")], &names, false), "data: 1\n\n");
    }
}
