//! Log lines on standard output, as JSON or text. Each event is one line, whatever its values contain.

use std::fmt;

use serde::Deserialize;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::format::{self, Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::ConfigErrors;
use crate::one_line::one_line;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
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
    /// Reports an invalid filter.
    pub fn validate(&self, errors: &mut ConfigErrors) {
        if let Err(error) = EnvFilter::builder().parse(&self.filter) {
            errors.add("log.filter", error);
        }
    }
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is invalid.
    #[error("the log filter is invalid")]
    Filter(#[from] ParseError),
    /// The log was set up before.
    #[error("the log is already set up")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Libraries that log frames, headers or commands below `info`. Those contain tokens and messages, so no filter may enable them.
const PRIVATE_BELOW_INFO: [&str; 7] =
    ["tungstenite", "tokio_tungstenite", "h2", "hyper", "hyper_util", "reqwest", "mongodb"];

/// Writes the log lines of the process to standard output, panics included.
///
/// # Errors
/// Where the filter is invalid, or the log was set up before.
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
    let filter = EnvFilter::builder().parse(&settings.filter)?;
    // A layer beside the filter, because in a filter a directive for a longer target overrides one for the library.
    let public = filter_fn(|metadata| !is_private(metadata));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    Ok(match settings.format {
        LogFormat::Json => {
            let format: Format<Json> = format::format().json().flatten_event(true).with_current_span(false);
            Box::new(builder.fmt_fields(format::JsonFields::new()).event_format(OneLine(format)).finish().with(public))
        }
        LogFormat::Text => {
            Box::new(builder.event_format(OneLine(format::format().with_ansi(false))).finish().with(public))
        }
    })
}

/// Whether a log line of a library may hold tokens or messages.
fn is_private(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() > Level::INFO && PRIVATE_BELOW_INFO.contains(&library)
}

/// Logs a panic as one line with its place, instead of several lines on standard error.
///
/// Only a literal message is logged. A formatted one may quote the text of a user (slicing a `str` inside a character does).
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown)");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(target: "panic", place, thread = thread.name().unwrap_or_default(), text = message, "a task panicked");
    }));
}

/// Writes an event as one line.
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
    fn a_bad_filter_is_an_error() {
        let mut errors = ConfigErrors::default();
        LogSettings { filter: "info,=,,x=loud".to_owned(), format: LogFormat::Json }.validate(&mut errors);
        assert!(errors.has("log.filter"));
    }

    #[test]
    fn a_panic_is_one_line_without_quoted_text() {
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
    fn no_filter_enables_private_log_lines_of_libraries() {
        let logged = log("trace,tungstenite=trace,tungstenite::protocol=trace", LogFormat::Json, || {
            tracing::trace!(target: "tungstenite::protocol", "the words of a user");
            tracing::trace!(target: "chatbox_gateway", "own line");
        });
        assert!(logged.contains("own line") && !logged.contains("words"), "{logged}");
    }
}
