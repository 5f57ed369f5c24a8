//! The order of modules, on small crates that are written for each test, and on this workspace.

use super::*;

/// A crate of these files; the first is its root.
fn findings(files: &[(&str, &str)]) -> Findings {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    Findings::of(&folder.path().join(files[0].0)).unwrap()
}

#[test]
fn imports_down_the_list_are_fine() {
    let found = findings(&[
        ("lib.rs", "pub mod top; mod low;"),
        ("top/mod.rs", "mod part; use crate::low::Low; pub fn f() { part::g() }"),
        ("top/part.rs", "use std::fmt; pub fn g() { crate::low::h() }"),
        ("low.rs", "pub struct Low; pub fn h() {}"),
    ]);
    assert!(found.is_empty(), "{found}");
}

#[test]
fn an_import_up_the_list_is_named_with_its_line() {
    let found = findings(&[
        ("lib.rs", "mod top; mod low; pub struct InRoot;"),
        ("top.rs", "pub struct Top;"),
        ("low.rs", "use std::fmt;\nuse crate::{top::Top as Other, InRoot};"),
    ]);
    assert_eq!(found.upward, ["low.rs → top.rs  crate::top::Top (line 2)", "low.rs → lib.rs  crate::InRoot (line 2)"]);
    assert!(found.circles.is_empty(), "{found}");
}

#[test]
fn files_that_import_each_other_are_a_circle() {
    let found = findings(&[
        ("lib.rs", "mod room;"),
        ("room/mod.rs", "mod a; mod b; mod c;"),
        ("room/a.rs", "use super::b::B; pub struct A;"),
        ("room/b.rs", "pub struct B(super::c::C);"),
        ("room/c.rs", "pub struct C; fn f() { println!(\"{:?}\", super::a::A) }"),
    ]);
    let lines = [
        "room/a.rs → room/b.rs  super::b::B (line 1)",
        "room/b.rs → room/c.rs  super::c::C (line 1)",
        "room/c.rs → room/a.rs  super::a::A (line 1)",
    ];
    assert_eq!(found.circles, [lines]);
}

#[test]
fn a_re_exported_name_counts_for_the_file_that_defines_it() {
    let files = |part: &'static str| {
        findings(&[
            ("lib.rs", "mod user; mod room;"),
            ("user.rs", "use crate::room::Part;"),
            ("room/mod.rs", "mod part; mod face; pub use part::Part; pub use face::*;"),
            ("room/part.rs", part),
            ("room/face.rs", "use super::Part;"),
        ])
    };
    // `room/mod.rs` only passes the name on: neither file imports `room/mod.rs`.
    assert!(files("pub struct Part;").is_empty());
    let found = files("use crate::user::X; pub struct Part;");
    assert_eq!(found.circles.len(), 1, "{found}");
    assert_eq!(found.upward, ["room/part.rs → user.rs  crate::user::X (line 1)"]);
}

#[test]
fn a_module_that_uses_its_own_re_export_imports_it() {
    let found = findings(&[
        ("lib.rs", "mod room;"),
        ("room/mod.rs", "mod part; pub use part::Part; pub struct Own; fn f() -> Part { todo!() }"),
        ("room/part.rs", "pub struct Part(super::Own);"),
    ]);
    assert_eq!(found.circles.len(), 1, "{found}");
}

#[test]
fn a_re_export_of_another_room_is_an_import() {
    let found = findings(&[
        ("lib.rs", "mod top; mod low;"),
        ("top.rs", "pub struct Top;"),
        ("low.rs", "pub(crate) use crate::top::Top;"),
    ]);
    assert_eq!(found.upward, ["low.rs → top.rs  crate::top::Top (line 1)"]);
}

#[test]
fn a_re_export_of_a_sibling_is_an_import() {
    let found = findings(&[
        ("lib.rs", "mod room;"),
        ("room/mod.rs", "mod a; mod b; pub use a::A;"),
        ("room/a.rs", "pub use super::b::B; pub struct A;"),
        ("room/b.rs", "use super::A; pub struct B;"),
    ]);
    assert_eq!(found.circles.len(), 1, "{found}");
}

#[test]
fn a_folder_without_a_crate_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(print(&[folder.path().to_owned()]).unwrap_err().to_string().contains("src/lib.rs"));
}

#[test]
fn every_crate_but_the_tests_is_checked() {
    let names: Vec<_> =
        members().unwrap().iter().map(|folder| folder.strip_prefix(root()).unwrap().to_owned()).collect();
    for name in ["brain", "client", "gateway", "link", "shared", "xtask"] {
        assert!(names.contains(&name.into()), "{names:?}");
    }
    assert!(!names.contains(&"tests".into()), "{names:?}");
}

#[test]
fn test_code_is_free() {
    let found = findings(&[
        ("lib.rs", "mod top; mod low;"),
        ("top.rs", "pub struct Top; mod inner { #[cfg(test)] use super::super::low::Low; }"),
        ("low.rs", "pub struct Low; #[cfg(test)] mod tests; impl Low { #[cfg(test)] fn f() { crate::top::g() } }"),
        ("low/tests.rs", "use crate::top::Top;"),
    ]);
    assert!(found.is_empty(), "{found}");
}

#[test]
fn inline_modules_belong_to_their_file() {
    let found = findings(&[
        ("lib.rs", "mod top; mod low;"),
        ("top.rs", "pub struct Top;"),
        ("low.rs", "mod inner { use super::Low; pub(in crate::low) fn f() { super::super::top::g() } } struct Low;"),
    ]);
    assert_eq!(found.upward, ["low.rs → top.rs  super::super::top::g (line 1)"]);
}

/// The order of this repository's own modules.
#[test]
fn the_crates_keep_the_order() {
    check().unwrap();
}
