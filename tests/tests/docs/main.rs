//! The pages in `docs/` against what they describe: the settings, the codes, the messages of the protocol. And the sources
//! against the rules of CONTRIBUTING.md that text alone can show.
//!
//! `docs/configuration.md` is written from the two `default.toml`; with `CHATBOX_WRITE_DOCS=1` this test writes it.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

mod notices;
mod sources;
mod variables;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use chatbox_shared::failure::ErrorCode;
use chatbox_tests::harness::schema::{self, Sender};
use serde_json::Value;

/// Makes the tests write the pages that are made from sources instead of comparing them.
const WRITE: &str = "CHATBOX_WRITE_DOCS";
/// What stands before the tables of the settings.
const CONFIGURATION_HEAD: &str = "\
# Settings

This page is generated from `gateway/default.toml` and `brain/default.toml`, which are built into the services and have
every default. Do not edit it. Change those files, and run `CHATBOX_WRITE_DOCS=1 cargo test -p chatbox-tests --test docs`.

A service reads the built-in defaults, then the TOML file that `--config` or `CHATBOX_CONFIG` names, then environment
variables. A later source wins. Secrets come from the environment or from the file that a `*_file` key names, never from
TOML. At start a service reports every unknown key, wrong type and value out of range, and exits with code 2.
`check-config` checks without starting.

A `[[models]]` table may set every key of `[provider]` for its model. Models that share an endpoint must agree on
`max_concurrent`, `max_queued`, `breaker_failures` and `breaker_open_ms`.
";

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One key of a `default.toml` with the comment above it.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    key: String,
    default: String,
    meaning: String,
}

/// One section with the comment above its header.
#[derive(Debug, Default)]
struct Section {
    name: String,
    about: String,
    settings: Vec<Setting>,
}

/// The sections and keys of a `default.toml`. The file has one key per line, and comments above what they explain. A comment
/// on consecutive keys without one in between explains them all.
struct Defaults {
    sections: Vec<Section>,
    /// The commented-out example at the end, if there is one: its keys have no defaults.
    example: Option<String>,
}

impl Defaults {
    fn parse(text: &str) -> Self {
        let mut sections: Vec<Section> = Vec::new();
        let mut comment: Vec<&str> = Vec::new();
        // The head of the file is about the file.
        let body = text.split_once("\n\n").map_or(text, |(_, body)| body);
        for line in body.lines().map(str::trim_end) {
            if let Some(words) = line.strip_prefix('#') {
                comment.push(words.strip_prefix(' ').unwrap_or(words));
            } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                let about = std::mem::take(&mut comment).join(" ");
                sections.push(Section { name: name.to_owned(), about, settings: Vec::new() });
            } else if let Some((key, default)) = line.split_once(" = ") {
                let section = sections.last_mut().expect("a key stands in a section");
                let meaning = std::mem::take(&mut comment).join(" ");
                section.settings.push(Setting { key: key.to_owned(), default: default.to_owned(), meaning });
            } else {
                assert!(line.is_empty(), "a line that is none of comment, section and key: {line:?}");
                assert!(comment.is_empty(), "a comment above nothing: {comment:?}");
            }
        }
        let example = (!comment.is_empty()).then(|| comment.join("\n"));
        Self { sections, example }
    }

    fn render(&self, page: &mut String) {
        for section in &self.sections {
            write!(page, "\n### `[{}]`\n\n", section.name).expect("to memory");
            if !section.about.is_empty() {
                write!(page, "{}\n\n", cell(&section.about)).expect("to memory");
            }
            if section.settings.is_empty() {
                continue;
            }
            page.push_str("| key | default | meaning | environment |\n|---|---|---|---|\n");
            for Setting { key, default, meaning } in &section.settings {
                let variable = variable(&section.name, key);
                let meaning = if meaning.is_empty() { "as above".to_owned() } else { cell(meaning) };
                writeln!(page, "| `{key}` | `{default}` | {meaning} | `{variable}` |").expect("to memory");
            }
        }
        if let Some((about, sample)) = self.example.as_deref().and_then(|example| example.split_once("\n\n")) {
            write!(page, "\n### `[[models]]`\n\n{about}\n\n```toml\n{sample}\n```\n").expect("to memory");
        }
    }
}

/// The environment variable that sets a key.
fn variable(section: &str, key: &str) -> String {
    format!("CHATBOX__{}__{key}", section.replace('.', "__")).to_ascii_uppercase()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*")
}

fn configuration() -> String {
    let mut page = CONFIGURATION_HEAD.to_owned();
    for (title, path) in [("Gateway", "gateway/default.toml"), ("Brain", "brain/default.toml")] {
        write!(page, "\n## {title}\n").expect("to memory");
        Defaults::parse(&read(path)).render(&mut page);
    }
    page
}

#[test]
fn the_settings_page_is_made_from_the_defaults() {
    let page = configuration();
    if std::env::var_os(WRITE).is_some() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        fs::write(&path, &page).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    assert!(
        read("docs/configuration.md") == page,
        "docs/configuration.md is not what the default.toml files make: run this test with {WRITE}=1"
    );
}

#[test]
fn a_defaults_file_is_taken_apart() {
    let text = "# The head.\n\n[a]\n# What one is.\n# Still one.\none = 1\ntwo = \"x | y\"\n\n# About b.\n[a.b]\nlist = []\n\n# Models.\n#\n# [[models]]\n# id = \"m\"\n";
    let defaults = Defaults::parse(text);
    let keys: Vec<_> =
        defaults.sections.iter().map(|section| (section.name.as_str(), section.settings.len())).collect();
    assert_eq!(keys, [("a", 2), ("a.b", 1)]);
    assert_eq!(defaults.sections[0].settings[0].meaning, "What one is. Still one.");
    assert_eq!(defaults.sections[1].about, "About b.");
    assert_eq!(variable("a.b", "list"), "CHATBOX__A__B__LIST");
    let mut page = String::new();
    defaults.render(&mut page);
    assert!(page.contains("| `two` | `\"x | y\"` | as above | `CHATBOX__A__TWO` |"), "{page}");
    assert!(page.ends_with("### `[[models]]`\n\nModels.\n\n```toml\n[[models]]\nid = \"m\"\n```\n"), "{page}");
}

/// The part of a page below the heading that begins so.
fn part<'a>(page: &'a str, heading: &str) -> &'a str {
    let begin = page.find(&format!("\n## {heading}")).unwrap_or_else(|| panic!("no section {heading}")) + 1;
    let end = page[begin..].find("\n## ").map_or(page.len(), |end| begin + end);
    &page[begin..end]
}

/// A code's row in the table.
fn error_row(code: ErrorCode) -> String {
    let retryable = if code.retryable() { "yes" } else { "no" };
    format!("| `{code}` | {} | {retryable} | {} |", code.http_status(), code.text())
}

/// Writes the rows of the table as the code has them.
fn write_error_rows() {
    let page = read("docs/protocol.md");
    let rows: Vec<&str> = part(&page, "8. Error codes")
        .lines()
        .skip_while(|line| !line.starts_with("| `"))
        .take_while(|line| !line.is_empty())
        .collect();
    let right: Vec<String> = ErrorCode::ALL.iter().map(|code| error_row(*code)).collect();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    fs::write(&path, page.replace(&rows.join("\n"), &right.join("\n")))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

#[test]
fn every_error_code_stands_in_the_table() {
    if std::env::var_os(WRITE).is_some() {
        write_error_rows();
    }
    let page = read("docs/protocol.md");
    let table = part(&page, "8. Error codes");
    for code in ErrorCode::ALL {
        let row = error_row(*code);
        assert!(table.lines().any(|line| line == row), "docs/protocol.md lacks the row\n{row}");
    }
    let rows = table.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, ErrorCode::ALL.len(), "docs/protocol.md has codes that do not exist");
    let described = &asyncapi()["components"]["schemas"]["ErrorCode"]["enum"];
    let codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(described, &serde_json::json!(codes), "docs/asyncapi.yaml");
}

fn asyncapi() -> Value {
    serde_norway::from_str(&read("docs/asyncapi.yaml")).unwrap_or_else(|error| panic!("docs/asyncapi.yaml: {error}"))
}

/// The messages of a `oneof` in `link.proto`.
fn messages_of(proto: &str, message: &str) -> BTreeSet<String> {
    let (_, body) = proto.split_once(&format!("\nmessage {message} {{\n  oneof message {{\n")).expect(message);
    let (fields, _) = body.split_once('}').expect("an end");
    fields.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}

/// The types that have a heading of their own in a section of the protocol page.
fn documented(section: &str) -> BTreeSet<String> {
    let headed = section.split("\n### `").skip(1);
    headed.map(|part| part.split_once("`\n").expect("a type is the whole heading").0.to_owned()).collect()
}

/// The blocks of JSON in a text.
fn examples(text: &str) -> Vec<Value> {
    let blocks = text.split("```json\n").skip(1).map(|rest| rest.split_once("```").expect("an end").0);
    blocks.map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}"))).collect()
}

/// Both pages have the messages that the link carries and those that the gateway handles itself, and each example of the
/// protocol page is a message that asyncapi.yaml describes.
fn check_direction(heading: &str, sender: Sender, message: &str, of_gateway: &[&str]) {
    let page = read("docs/protocol.md");
    let section = part(&page, heading);
    let mut expected = messages_of(&read("proto/chatbox/v1/link.proto"), message);
    expected.extend(of_gateway.iter().map(|&kind| kind.to_owned()));
    assert_eq!(documented(section), expected, "docs/protocol.md, {heading}");
    let described = schema::types(sender).unwrap_or_else(|error| panic!("{error:#}"));
    let described: BTreeSet<String> = described.into_iter().map(str::to_owned).collect();
    assert_eq!(described, expected, "docs/asyncapi.yaml, {heading}");
    let mut shown = BTreeSet::new();
    for example in examples(section) {
        schema::check(sender, &example).unwrap_or_else(|error| panic!("docs/protocol.md, {heading}: {error:#}"));
        shown.extend(example["type"].as_str().map(str::to_owned));
    }
    assert_eq!(shown, expected, "docs/protocol.md lacks an example, {heading}");
}

#[test]
fn both_pages_have_every_request() {
    check_direction("6. Client to server", Sender::Client, "ClientMessage", &["ping", "token_refresh"]);
}

#[test]
fn both_pages_have_every_event() {
    check_direction("7. Server to client", Sender::Server, "ServerMessage", &["welcome", "pong"]);
}

/// An example anywhere in the pages is JSON, and one with a `type` is a message of one side.
#[test]
fn every_frame_in_the_pages_is_described() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut frames = 0;
    for entry in fs::read_dir(&folder).expect("the folder docs") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        for example in examples(&fs::read_to_string(&path).expect("a page")) {
            if example.get("type").and_then(Value::as_str).is_none() {
                continue;
            }
            frames += 1;
            let checked = [Sender::Client, Sender::Server].map(|sender| schema::check(sender, &example));
            assert!(checked.iter().any(Result::is_ok), "{}: {checked:?}", path.display());
        }
    }
    assert!(frames >= 33, "only {frames} frames were found");
}
