//! Behaviours of streams of any protocol, correct and faulty.

use std::time::Duration;

use super::Preset;
use crate::provider::fault::Fault;
use crate::provider::format::{LineEnd, Space, SseFormat, Tail};
use crate::provider::script::Script;
use crate::provider::step::{Finish, Step, Usage};

const SECOND: Duration = Duration::from_secs(1);

/// Text with characters of several bytes, in which a wrong cut shows.
fn answer() -> Script {
    Script::answer(["Grüße ", "aus ", "日本 ", "😀", "."])
}

fn begun() -> Script {
    Script::begun(["So far ", "so good"])
}

fn formatted(change: impl FnOnce(&mut SseFormat)) -> Script {
    let mut format = SseFormat::default();
    change(&mut format);
    answer().format(format)
}

pub(super) const PRESETS: &[Preset] = &[
    ("answer", "a short well-formed answer", answer),
    ("slow", "a well-formed answer of 40 pieces, one each 100 ms", || {
        Script::answer((1..=40).map(|number| format!("{number} "))).paced(SECOND / 10)
    }),
    ("pause", "silence of 3 seconds in the middle, then the rest", || {
        begun().then(Step::Wait(3 * SECOND)).then(Step::Delta(".".into())).then(Step::Finish { input: 10, output: 3 })
    }),
    ("reasoning", "reasoning before the text", || {
        Script::steps([
            Step::Begin,
            Step::Reasoning { text: "Thinking about it.".into(), field: None },
            Step::Delta("Done".into()),
            Step::Finish { input: 10, output: 6 },
        ])
    }),
    ("cached_usage", "the usage tells 80 of 100 input tokens as cached", || {
        let usage = Usage { input: 100, cached: 80, cache_written: 0, output: 1 };
        let finish = Finish { usage: Some(usage), ..Finish::default() };
        Script::steps([Step::BeginWith(usage), Step::Delta("Cached".into()), Step::FinishWith(finish)])
    }),
    ("no_usage", "a well-formed answer that tells no usage", || begun().then(Step::FinishWithoutUsage)),
    ("no_text", "a well-formed answer without any text", || {
        Script::steps([Step::Begin, Step::Finish { input: 10, output: 0 }])
    }),
    ("stall_before_text", "a stream that begins and then says nothing", || Script::steps([Step::Begin, Step::Stall])),
    ("stall_mid", "a stream that falls silent after some text", || begun().then(Step::Stall)),
    ("pings_forever", "keep-alive comments each second, never any text", || {
        Script::steps([Step::Begin, Step::KeepAlives { every: SECOND, count: None }])
    }),
    ("pings_then_answer", "five keep-alive comments, one each 200 ms, then the answer", || {
        let pings = Step::KeepAlives { every: SECOND / 5, count: Some(5) };
        Script::steps([Step::Begin, pings, Step::Delta("Finally".into()), Step::Finish { input: 10, output: 1 }])
    }),
    ("clean_eof", "the body ends cleanly after some text, without a terminator", begun),
    ("clean_eof_http10", "the same in HTTP/1.0, where the body ends with the connection", || begun().close_delimited()),
    ("cut_early", "the connection closes before any text", || Script::steps([Step::Begin, Step::Cut])),
    ("cut_mid", "the connection closes after some text", || begun().then(Step::Cut)),
    ("cut_in_event", "the connection closes within an event", || {
        begun().then(Step::Bytes("data: {\"lost".into())).then(Step::Cut)
    }),
    ("reset_mid", "the connection is reset after some text", || begun().then(Step::Reset)),
    ("half_close", "the server ends its half of the connection after some text", || begun().then(Step::HalfClose)),
    ("fault_early", "a fault in the stream before any text", || {
        Script::steps([Step::Begin, Step::Fault(Fault::default())])
    }),
    ("fault_mid", "a fault in the stream after some text", || begun().then(Step::Fault(Fault::default()))),
    ("crlf", "lines end with CR LF", || formatted(|format| format.line_end = LineEnd::CrLf)),
    ("lone_cr", "lines end with CR", || formatted(|format| format.line_end = LineEnd::Cr)),
    ("bom", "a byte order mark at the start", || formatted(|format| format.bom = true)),
    ("comments", "comments between the events", || {
        formatted(|format| format.comments = vec!["OPENROUTER PROCESSING".into(), "keep-alive".into()])
    }),
    ("unknown_events", "events of unknown kinds in between", || formatted(|format| format.unknown_events = true)),
    ("multi_line", "each event over several `data:` lines", || formatted(|format| format.multi_line = true)),
    ("no_space", "`data:` without a space", || formatted(|format| format.space = Space::None)),
    ("two_spaces", "`data:` with two spaces", || formatted(|format| format.space = Space::Two)),
    ("escaped", "characters beyond ASCII as `\\uXXXX`", || formatted(|format| format.escaped = true)),
    ("no_last_blank_line", "the last event without its blank line", || {
        formatted(|format| format.tail = Tail::NoBlankLine)
    }),
    ("no_last_line_end", "the last event without any line end", || formatted(|format| format.tail = Tail::NoLineEnd)),
    ("split_bytes", "every byte by itself, so characters and line ends are torn", || answer().split_every(1)),
    ("all_formats", "all of these at once, in pieces of 3 bytes", || {
        let comments = vec!["OPENROUTER PROCESSING".to_owned()];
        let (line_end, space, tail) = (LineEnd::CrLf, Space::Two, Tail::NoBlankLine);
        let format = SseFormat {
            line_end,
            bom: true,
            comments,
            unknown_events: true,
            multi_line: true,
            space,
            escaped: true,
            tail,
        };
        answer().format(format).split_every(3)
    }),
    ("huge_line", "one event of 8 MiB on one line", || {
        Script::steps([Step::Begin, Step::HugeLine { mib: 8 }, Step::Finish { input: 10, output: 1 }])
    }),
    ("endless", "text without end, a piece each 20 ms", || {
        Script::steps([Step::Begin, Step::Endless { every: SECOND / 50, text: None }])
    }),
    ("flood", "text without end, as fast as it is read", || {
        // Long pieces: the limit of a client is reached in a moment, also on a busy machine.
        Script::steps([Step::Begin, Step::Endless { every: Duration::ZERO, text: Some("on and on ".repeat(100)) }])
    }),
];
