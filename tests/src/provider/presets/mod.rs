//! Named scripts, one for each behaviour that clients must handle. `docs/mock-llm.md` lists them.

mod anthropic;
mod dify;
mod http;
mod openai;
mod stream;

use std::sync::LazyLock;

use super::script::Script;

/// A name, a description, and a script.
type Preset = (&'static str, &'static str, fn() -> Script);

const TABLES: [&[Preset]; 5] = [stream::PRESETS, http::PRESETS, openai::PRESETS, anthropic::PRESETS, dify::PRESETS];

/// Every name with its description.
pub static ALL: LazyLock<Vec<(&'static str, &'static str)>> =
    LazyLock::new(|| TABLES.iter().flat_map(|table| table.iter()).map(|(name, about, _)| (*name, *about)).collect());

/// The script of this name.
pub fn preset(name: &str) -> Option<Script> {
    let mut all = TABLES.iter().flat_map(|table| table.iter());
    all.find(|(known, _, _)| *known == name).map(|(name, _, make)| make().named(*name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_lead_to_their_scripts() {
        let names: BTreeSet<_> = ALL.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), ALL.len());
        for name in names {
            assert_eq!(preset(name).unwrap().name, name);
        }
        assert!(preset("no such").is_none());
    }

    #[test]
    fn every_name_stands_in_the_documentation_with_what_it_does() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mock-llm.md");
        let page = std::fs::read_to_string(path).unwrap();
        for (name, about) in ALL.iter() {
            let row = format!("| `{name}` | {about} |");
            assert!(page.contains(&row), "docs/mock-llm.md lacks the row\n{row}");
        }
        for field in super::super::json::FIELDS {
            assert!(page.contains(&format!("`{field}`")), "docs/mock-llm.md lacks the field {field}");
        }
    }
}
