//! Log lines: JSON or text on standard output, one event one line, whatever the values in it hold.

use std::fmt::{self, Write as _};

use serde::Deserialize;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::format::{self, Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Faults;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// The section `[log]` of both services.
#[derive(Debug, Clone, Deserialize)]
pub struct LogSettings {
    /// A tracing filter, such as `info` or `info,chatbox_brain=debug`.
    pub filter: String,
    /// JSON or text.
    pub format: LogFormat,
}

impl LogSettings {
    /// Reports a filter that cannot be read.
    pub fn validate(&self, faults: &mut Faults) {
        if let Err(error) = EnvFilter::builder().parse(&self.filter) {
            faults.add("log.filter", error);
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("the log filter is not valid")]
    Filter(#[from] ParseError),
    /// There is a subscriber already.
    #[error("logging is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Libraries that log what they carry (frames, headers, commands) below `info`: tokens and message texts, which no filter
/// may bring into the log.
const TALKATIVE: [&str; 7] = ["tungstenite", "tokio_tungstenite", "h2", "hyper", "hyper_util", "reqwest", "mongodb"];

/// Sends the process's log lines to standard output, panics included.
///
/// # Errors
/// Where the filter cannot be read, or this was done before.
pub fn init(settings: &LogSettings) -> Result<(), TelemetryError> {
    subscriber(settings, std::io::stdout)?.try_init()?;
    log_panics();
    Ok(())
}

/// The subscriber that writes log lines to `writer`.
fn subscriber<W>(settings: &LogSettings, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let mut filter = EnvFilter::builder().parse(&settings.filter)?;
    for library in TALKATIVE {
        filter = filter.add_directive(format!("{library}=info").parse()?);
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    Ok(match settings.format {
        LogFormat::Json => {
            let format: Format<Json> = format::format().json().flatten_event(true).with_current_span(false);
            Box::new(builder.fmt_fields(format::JsonFields::new()).event_format(OneLine(format)).finish())
        }
        LogFormat::Text => Box::new(builder.event_format(OneLine(format::format().with_ansi(false))).finish()),
    })
}

/// Logs panics as one line with the place, instead of several on standard error.
///
/// Only a literal text is logged: one made at the time of the panic may quote what a user wrote (slicing a `str` wrongly
/// does), and the place says enough to find the fault.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown)");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(target: "panic", place, thread = thread.name().unwrap_or_default(), text = message, "a task panicked");
    }));
}

/// Makes sure that an event is one line.
struct OneLine<F>(F);

impl<S, N, F> FormatEvent<S, N> for OneLine<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{}", one_line(line.strip_suffix('\n').unwrap_or(&line)))
    }
}

/// The text with everything escaped that could begin a new line, move a terminal's cursor or turn the reading direction.
///
/// The escapes are JSON's (`\u000a`), so that a JSON line stays JSON: there these characters occur in strings only.
pub fn one_line(text: &str) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        text.chars().try_for_each(|c| match c {
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c)),
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write!(f, "\\u{:04x}", u32::from(c))
            }
            c => f.write_char(c),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `f` runs.
    fn log(filter: &str, format: LogFormat, f: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let settings = LogSettings { filter: filter.to_owned(), format };
        let writer = buffer.clone();
        tracing::subscriber::with_default(subscriber(&settings, move || writer.clone()).unwrap(), f);
        let bytes = buffer.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "a\nb\r\n{\"level\":\"ERROR\"}\u{85}\u{2028}\u{202e}\u{1b}[31m\u{0}\u{7f}\"\\";

    #[test]
    fn a_json_event_is_one_object_on_one_line() {
        let text = log("info", LogFormat::Json, || {
            let span = tracing::info_span!("connection", id = HOSTILE);
            span.in_scope(|| tracing::warn!(name = HOSTILE, debug = ?HOSTILE, number = 3, "{HOSTILE}"));
        });
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(text.ends_with('\n') && !text.trim_end().chars().any(char::is_control), "{text:?}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["name"], HOSTILE);
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], HOSTILE);
        assert_eq!(line["number"], 3);
        assert_eq!(line["spans"][0]["id"], HOSTILE);
    }

    #[test]
    fn a_text_event_is_one_line() {
        let text = log("info", LogFormat::Text, || tracing::info!(name = HOSTILE, other = %HOSTILE, "{HOSTILE}"));
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(!text.trim_end().chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{202e}'), "{text:?}");
    }

    #[test]
    fn the_filter_decides() {
        let text = log("warn,chatbox_shared=debug", LogFormat::Text, || {
            tracing::debug!("seen");
            tracing::info!(target: "elsewhere", "hidden");
        });
        assert!(text.contains("seen") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn a_bad_filter_is_a_fault() {
        let mut faults = Faults::default();
        LogSettings { filter: "info,=,,x=loud".to_owned(), format: LogFormat::Json }.validate(&mut faults);
        assert!(faults.has("log.filter"));
    }

    #[test]
    fn a_panic_is_one_line_without_what_it_quotes() {
        let canary = String::from("canary é");
        let text = log("info", LogFormat::Json, || {
            log_panics();
            let literal = std::panic::catch_unwind(|| panic!("a literal"));
            let quoted = std::panic::catch_unwind(|| drop(canary[..8].to_owned()));
            drop(std::panic::take_hook());
            assert!(literal.is_err() && quoted.is_err());
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("a literal") && text.contains("telemetry.rs:") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn no_filter_brings_out_what_libraries_carry() {
        let logged = log("trace,tungstenite=trace", LogFormat::Json, || {
            tracing::trace!(target: "tungstenite::protocol", "the words of a user");
            tracing::trace!(target: "chatbox_gateway", "ours");
        });
        assert!(logged.contains("ours") && !logged.contains("words"), "{logged}");
    }
}
