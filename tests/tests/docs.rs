//! The pages in `docs/` against what they describe: the settings, the codes, the messages of the protocol.
//!
//! `docs/configuration.md` is written from the two `default.toml`; with `CHATBOX_WRITE_DOCS=1` this test writes it.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use chatbox_shared::failure::ErrorCode;
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

/// A `default.toml` taken apart. The format is the house's own: one key per line, comments above what they explain; a
/// comment on consecutive keys without one in between explains them all.
struct Defaults {
    sections: Vec<Section>,
    /// The commented-out example at the end, if there is one: what it shows cannot have a default.
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
    let schema = read("docs/asyncapi.yaml");
    let (_, codes) = schema.split_once("\n    ErrorCode:\n").expect("the schema ErrorCode");
    let list = codes.split_once('[').and_then(|(_, rest)| rest.split_once(']')).expect("its list").0;
    let named: Vec<_> = list.split(',').map(str::trim).collect();
    assert_eq!(named, ErrorCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>());
}

/// The codes the services close a WebSocket with.
const CLOSE_CODES: [u16; 13] = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 4001, 4002, 4008, 4009];

#[test]
fn every_close_code_stands_in_the_table() {
    let page = read("docs/protocol.md");
    let rows: Vec<u16> = part(&page, "9. Close codes")
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(rows, CLOSE_CODES);
}

/// The messages of a `oneof` in `link.proto`.
fn messages_of(proto: &str, message: &str) -> BTreeSet<String> {
    let (_, body) = proto.split_once(&format!("\nmessage {message} {{\n  oneof message {{\n")).expect(message);
    let (fields, _) = body.split_once('}').expect("an end");
    fields.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}

/// The types of a section of the protocol page, each with its example.
fn documented(section: &str) -> Vec<(&str, Value)> {
    let headed = section.split("\n### `").skip(1);
    let typed = headed.map(|part| part.split_once("`\n").expect("a type is the whole heading"));
    typed
        .map(|(kind, text)| {
            let (_, example) = text.split_once("```json\n").unwrap_or_else(|| panic!("{kind} has no example"));
            let (example, _) = example.split_once("```").expect("an end");
            let example = serde_json::from_str(example).unwrap_or_else(|error| panic!("{kind}: {error}"));
            (kind, example)
        })
        .collect()
}

/// The types and their fields in the payloads of `asyncapi.yaml`; `of_client` tells requests, which are closed, apart
/// from events, which may grow. The file is read by its indentation.
fn described(yaml: &str, of_client: bool) -> Vec<(String, BTreeSet<String>)> {
    let (_, messages) = yaml.split_once("\n  messages:\n").expect("components.messages");
    let (messages, _) = messages.split_once("\n  schemas:\n").expect("components.schemas");
    let mut types = Vec::new();
    for payload in messages.split("\n      payload:\n").skip(1) {
        if payload.contains("\n        additionalProperties: false\n") != of_client {
            continue;
        }
        let (_, fields) = payload.split_once("\n        properties:\n").expect("properties");
        let fields: BTreeSet<String> = fields
            .lines()
            .take_while(|line| line.starts_with("          "))
            .filter(|line| line.chars().nth(10).is_some_and(|first| first.is_ascii_lowercase()))
            .filter_map(|line| Some(line.trim_start().split_once(':')?.0.to_owned()))
            .collect();
        let (_, kind) = payload.split_once("type: {const: ").expect("a constant type");
        types.push((kind.split_once('}').expect("an end").0.to_owned(), fields));
    }
    types
}

/// What both pages say is what the link carries and the gateway adds, with the same fields on both pages.
fn check_direction(heading: &str, of_client: bool, message: &str, of_gateway: &[&str]) {
    let (page, yaml) = (read("docs/protocol.md"), read("docs/asyncapi.yaml"));
    let mut expected = messages_of(&read("proto/chatbox/v1/link.proto"), message);
    expected.extend(of_gateway.iter().map(|&kind| kind.to_owned()));
    let documented = documented(part(&page, heading));
    let described = described(&yaml, of_client);
    let names: BTreeSet<String> = documented.iter().map(|(kind, _)| (*kind).to_owned()).collect();
    assert_eq!(names, expected, "docs/protocol.md, {heading}");
    let names: BTreeSet<String> = described.iter().map(|(kind, _)| kind.clone()).collect();
    assert_eq!(names, expected, "docs/asyncapi.yaml, {heading}");
    for (kind, example) in documented {
        assert_eq!(example["type"], kind, "the example of {kind}");
        let (_, fields) = described.iter().find(|(name, _)| name == kind).expect("described");
        let object = example.as_object().expect("an object");
        let unknown: Vec<_> = object.keys().filter(|field| !fields.contains(*field)).collect();
        assert!(unknown.is_empty(), "the example of {kind} has {unknown:?}, which docs/asyncapi.yaml lacks");
    }
}

#[test]
fn both_pages_have_every_request() {
    check_direction("6. Client to server", true, "ClientMessage", &["ping", "token_refresh"]);
}

#[test]
fn both_pages_have_every_event() {
    check_direction("7. Server to client", false, "ServerMessage", &["welcome", "pong"]);
}
