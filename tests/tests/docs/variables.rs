//! The environment variables of the tools and the tests: the services ignore exactly those that CONTRIBUTING.md lists.

use std::collections::BTreeSet;

use super::read;

#[test]
fn the_services_ignore_the_variables_that_contributing_lists() {
    let page = read("CONTRIBUTING.md");
    let listed: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `CHATBOX_")?.split('`').next()).collect();
    let source = read("shared/src/config/layer.rs");
    let (_, list) = source.split_once("const HELPERS").expect("the list of variables that are no settings");
    let (list, _) = list.split_once("];").expect("the end of the list");
    let ignored: BTreeSet<&str> = list.split('"').filter_map(|name| name.strip_prefix("CHATBOX_")).collect();
    assert_eq!(ignored, listed, "left: shared/src/config/layer.rs; right: CONTRIBUTING.md");
}
