//! Rules for every source file of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

/// The Rust files below a folder.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_begins_with_what_it_owns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for member in ["brain", "client", "gateway", "link", "shared", "tests", "xtask"] {
        rust_files(&root.join(member), &mut files);
    }
    assert!(files.len() > 200, "only {} files were found", files.len());
    files.retain(|file| !fs::read_to_string(file).expect("a source file").starts_with("//! "));
    assert!(files.is_empty(), "these files do not begin with `//!`: {files:#?}");
}
