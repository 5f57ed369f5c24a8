//! Server-sent events: bytes in, events out. Knows the line grammar and no meaning of events.
//!
//! Bytes are buffered until a line is complete, so a chunk may end anywhere, also inside a character or between CR and
//! LF. Only CR, LF and CRLF end a line; Unicode line breaks in JSON strings are text. `id` and `retry` are ignored: a
//! broken answer is requested again, never resumed.

use std::mem;

/// The largest event. Known providers stay far below; a larger event would only fill the memory.
pub const MAX_EVENT_BYTES: usize = 4 << 20;

/// One dispatched event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// The `event` field, empty where there was none.
    pub name: String,
    /// The `data` lines, joined with LF.
    pub data: String,
}

/// An event exceeds the limit. The decoder must not be used after this error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {limit} bytes")]
pub struct TooLarge {
    /// The limit in bytes.
    pub limit: usize,
}

/// An incremental decoder of one stream.
#[derive(Debug)]
pub struct SseDecoder {
    limit: usize,
    /// The beginning of a line that has not ended.
    line: Vec<u8>,
    name: String,
    /// `None` until a `data` line arrived: an event without one is not dispatched.
    data: Option<String>,
    /// The last byte was a CR: an LF after it belongs to the same line end.
    skip_lf: bool,
    /// No line has ended yet: the first line may begin with a byte order mark.
    first_line: bool,
}

impl Default for SseDecoder {
    fn default() -> Self {
        Self::with_limit(MAX_EVENT_BYTES)
    }
}

impl SseDecoder {
    /// A decoder that refuses events of more than `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self { limit, line: Vec::new(), name: String::new(), data: None, skip_lf: false, first_line: true }
    }

    /// Takes the next bytes and appends the events they complete.
    ///
    /// # Errors
    /// Where an event is too large. The events before it have been appended.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<SseEvent>) -> Result<(), TooLarge> {
        let mut rest = bytes;
        if self.skip_lf && !rest.is_empty() {
            self.skip_lf = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let (line, tail) = rest.split_at(end);
            rest = match tail {
                [b'\r', b'\n', after @ ..] => after,
                [b'\r'] => {
                    self.skip_lf = true;
                    &[]
                }
                [_, after @ ..] => after,
                [] => &[],
            };
            self.check_room(line.len())?;
            if self.line.is_empty() {
                events.extend(self.end_line(line));
            } else {
                let mut whole = mem::take(&mut self.line);
                whole.extend_from_slice(line);
                events.extend(self.end_line(&whole));
                whole.clear();
                self.line = whole;
            }
        }
        self.check_room(rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// The stream ended. Returns a last event whose final blank line is missing, because some servers end that way; the
    /// caller decides whether its data is complete.
    pub fn finish(&mut self) -> Option<SseEvent> {
        if !self.line.is_empty() {
            let line = mem::take(&mut self.line);
            self.field(&line);
        }
        self.dispatch()
    }

    fn check_room(&self, more: usize) -> Result<(), TooLarge> {
        let held = self.line.len() + self.name.len() + self.data.as_ref().map_or(0, String::len);
        if held + more > self.limit { Err(TooLarge { limit: self.limit }) } else { Ok(()) }
    }

    fn end_line(&mut self, line: &[u8]) -> Option<SseEvent> {
        let line = match mem::take(&mut self.first_line) {
            true => line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line),
            false => line,
        };
        if line.is_empty() {
            return self.dispatch();
        }
        self.field(line);
        None
    }

    /// A comment line begins with a colon: its empty field name matches nothing here.
    fn field(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut self.data) {
            ("event", _) => self.name = value.to_owned(),
            ("data", Some(data)) => {
                data.push('\n');
                data.push_str(value);
            }
            ("data", none) => *none = Some(value.to_owned()),
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let name = mem::take(&mut self.name);
        self.data.take().map(|data| SseEvent { name, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<SseEvent> {
        let (mut decoder, mut events) = (SseDecoder::default(), Vec::new());
        for piece in pieces {
            decoder.push(piece, &mut events).unwrap();
        }
        events.extend(decoder.finish());
        events
    }

    fn event(name: &str, data: &str) -> SseEvent {
        SseEvent { name: name.into(), data: data.into() }
    }

    /// Everything the grammar knows, with LF as the line end.
    const STREAM: &str = "\u{feff}: hello\ndata: one\n\nevent: ping\n\nevent: two\ndata:no space\ndata:  two spaces\n\n\
        id: 7\nretry: 100\ndata\n\ndata: \u{2028}grüße \u{1F600}\u{85}\nunknown: x\n\n: keep-alive\n\nevent:last\ndata: {}";

    fn expected() -> Vec<SseEvent> {
        vec![
            event("", "one"),
            event("two", "no space\n two spaces"),
            event("", ""),
            event("", "\u{2028}grüße \u{1F600}\u{85}"),
            event("last", "{}"),
        ]
    }

    #[test]
    fn every_split_of_every_line_ending_gives_the_same_events() {
        for ending in ["\n", "\r\n", "\r"] {
            let stream = STREAM.replace('\n', ending);
            let bytes = stream.as_bytes();
            for split in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(split);
                assert_eq!(decode([head, tail]), expected(), "split at {split} with {ending:?}");
            }
            assert_eq!(decode(bytes.chunks(1)), expected(), "byte by byte with {ending:?}");
        }
    }

    #[test]
    fn only_one_byte_order_mark_is_read_over() {
        assert_eq!(decode(["\u{feff}\u{feff}data: x\n\n".as_bytes()]), []);
        assert_eq!(decode(["data: a\n\n\u{feff}data: b\n\n".as_bytes()]), [event("", "a")]);
    }

    #[test]
    fn an_event_over_the_limit_is_an_error_wherever_it_grows() {
        for stream in ["data: 0123456789\n\n", "data: 01\ndata: 23\ndata: 456789\n\n", "xxxxxxxxxxxxxxxxxxxx"] {
            let (mut decoder, mut events) = (SseDecoder::with_limit(12), Vec::new());
            let result = stream.as_bytes().chunks(3).try_for_each(|piece| decoder.push(piece, &mut events));
            assert_eq!((result, events), (Err(TooLarge { limit: 12 }), vec![]), "{stream:?}");
        }
        let (mut decoder, mut events) = (SseDecoder::with_limit(12), Vec::new());
        decoder.push(&b"data: 012345\n\n".repeat(50), &mut events).unwrap();
        assert_eq!(events.len(), 50, "the limit is per event");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_events(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), Just(b'd'), any::<u8>()], 0..200),
            sizes in proptest::collection::vec(1usize..20, 1..50),
        ) {
            let mut pieces = Vec::new();
            let mut rest = bytes.as_slice();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (head, tail) = rest.split_at((*size).min(rest.len()));
                pieces.push(head);
                rest = tail;
            }
            prop_assert_eq!(decode(pieces), decode([bytes.as_slice()]));
        }

        #[test]
        fn what_is_encoded_comes_back(
            sent in proptest::collection::vec(("[a-z_]{0,8}", proptest::collection::vec("[^\r\n]{0,12}", 1..4)), 0..6),
            ending in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
            size in 1usize..17,
        ) {
            let (mut stream, mut expected) = (String::new(), Vec::new());
            for (name, lines) in &sent {
                stream += &format!("event: {name}{ending}");
                for line in lines {
                    stream += &format!("data: {line}{ending}");
                }
                stream += ending;
                expected.push(event(name, &lines.join("\n")));
            }
            prop_assert_eq!(decode(stream.as_bytes().chunks(size)), expected);
        }
    }
}
