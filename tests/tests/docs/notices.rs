//! The codes of `notice`, and the close codes that a brain sends, in every place that lists them.

use std::collections::BTreeSet;

use super::{asyncapi, part, read};

/// The codes in the first column of the table of notices.
fn documented() -> BTreeSet<String> {
    let page = read("docs/protocol.md");
    let (_, section) = part(&page, "7. Server to client").split_once("\n### `notice`\n").expect("a section of notices");
    let table = section.split("\n### ").next().unwrap_or_default();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.map(str::to_owned).collect()
}

/// The close code and the notice's code of each reason for which a brain ends a connection.
fn kicks() -> Vec<(String, String)> {
    let source = read("brain/src/grpc/kick.rs");
    let arms = source.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => ("));
    let kicks = arms.filter_map(|(_, parts)| {
        let (close_code, rest) = parts.split_once(", \"")?;
        Some((close_code.to_owned(), rest.split('"').next()?.to_owned()))
    });
    kicks.collect()
}

#[test]
fn asyncapi_lists_the_notice_codes_of_the_protocol_page() {
    let codes = &asyncapi()["components"]["messages"]["notice"]["payload"]["properties"]["code"]["enum"];
    let described: BTreeSet<String> =
        codes.as_array().expect("an enum").iter().filter_map(|code| code.as_str().map(str::to_owned)).collect();
    assert_eq!(described, documented());
}

#[test]
fn the_protocol_page_has_the_notices_of_the_brain() {
    let (kicks, documented) = (kicks(), documented());
    assert!(kicks.len() >= 5, "{kicks:?}");
    for (close_code, code) in kicks {
        assert!(documented.contains(&code), "docs/protocol.md lacks the notice {code} of close code {close_code}");
    }
}

#[test]
fn the_proto_file_names_the_close_codes_of_the_brain() {
    let proto = read("proto/chatbox/v1/link.proto");
    let (_, after) = proto.split_once("\n  // The WebSocket close code. ").expect("a comment on close_code");
    let (comment, _) = after.split_once("\n  uint32 close_code").expect("the field close_code");
    // The last sentence is about a replacement by the gateway.
    let (sent, _) = comment.split_once("The gateway replaces").expect("a sentence on replaced codes");
    let named: BTreeSet<&str> = sent.split(|c: char| !c.is_ascii_digit()).filter(|word| word.len() == 4).collect();
    let kicks = kicks();
    assert_eq!(named, kicks.iter().map(|(close_code, _)| close_code.as_str()).collect());
}
