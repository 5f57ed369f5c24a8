//! `cargo xtask rooms`: the order of the modules. Within a crate the imports between files form no circle, and a room (a
//! module that `lib.rs` or `main.rs` declares) imports only rooms that are declared below it: the order of the `mod` lines is
//! the rule. Test code is free.

mod imports;
mod tree;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::project::{metadata, root};
use imports::{Import, imports};
use tree::Tree;

/// The crate that is all test code, which is free of the order.
const TEST_CODE: &str = "chatbox-tests";

/// Which crates to look at.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The folder of a crate; without it all crates but `tests` are checked.
    crates: Vec<String>,
}

/// Prints all circles and upward imports; fails if there are any.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let crates = if arguments.crates.is_empty() {
        members()?
    } else {
        arguments.crates.iter().map(|name| root().join(name)).collect()
    };
    Ok(if print(&crates)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The check that is part of `cargo xtask test`.
pub(crate) fn check() -> Result<()> {
    if !print(&members()?)? {
        bail!("imports break the order of the modules, see above");
    }
    Ok(())
}

/// The folders of all crates of the workspace but [`TEST_CODE`].
fn members() -> Result<Vec<PathBuf>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let folder = |package: &serde_json::Value| {
        let manifest = package["manifest_path"].as_str().context("a package without a manifest")?;
        Path::new(manifest).parent().map(Path::to_owned).context("a manifest without a folder")
    };
    packages.iter().filter(|package| package["name"] != TEST_CODE).map(folder).collect()
}

/// Prints the findings of the crates in these folders; true if there are none.
fn print(crates: &[PathBuf]) -> Result<bool> {
    let mut clean = true;
    for folder in crates {
        let findings = Findings::of(&root_file(folder)?)?;
        let name = folder.strip_prefix(root()).unwrap_or(folder).display();
        println!("{name}: {} circles, {} upward imports", findings.circles.len(), findings.upward.len());
        print!("{findings}");
        clean &= findings.is_empty();
    }
    Ok(clean)
}

/// The file in which the modules of a crate begin.
fn root_file(folder: &Path) -> Result<PathBuf> {
    let mut candidates = ["lib.rs", "main.rs"].map(|file| folder.join("src").join(file)).into_iter();
    candidates
        .find(|file| file.is_file())
        .with_context(|| format!("{} has neither src/lib.rs nor src/main.rs", folder.display()))
}

/// What is wrong with the imports of one crate, in lines such as `a.rs → b.rs  super::b::B (line 3)`.
struct Findings {
    /// Groups of files of which each reaches every other, with the imports between them.
    circles: Vec<Vec<String>>,
    /// Imports of a room that is declared above.
    upward: Vec<String>,
}

impl Findings {
    fn of(root: &Path) -> Result<Self> {
        let tree = Tree::read(root)?;
        let imports = imports(&tree);
        let folder = root.parent().unwrap_or(root);
        let name = |file: usize| tree.files[file].path.strip_prefix(folder).unwrap_or(root).display().to_string();
        let line = |i: &Import| format!("{} → {}  {} (line {})", name(i.from), name(i.to), i.name, i.line);
        let rank = |file: usize| {
            let room = tree.files[file].module.first();
            room.and_then(|room| tree.rooms.iter().position(|name| name == room)).map_or(0, |place| place + 1)
        };
        let upward = imports.iter().filter(|import| rank(import.to) < rank(import.from)).map(line).collect();
        let inside = |group: &HashSet<usize>| {
            imports.iter().filter(|i| group.contains(&i.from) && group.contains(&i.to)).map(line).collect()
        };
        let circles = circles(tree.files.len(), &imports).iter().map(inside).collect();
        Ok(Self { circles, upward })
    }

    fn is_empty(&self) -> bool {
        self.circles.is_empty() && self.upward.is_empty()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for lines in &self.circles {
            writeln!(f, "  circle:")?;
            lines.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        self.upward.iter().try_for_each(|line| writeln!(f, "  upward: {line}"))
    }
}

/// The groups of two or more files that all reach each other.
fn circles(files: usize, imports: &[Import]) -> Vec<HashSet<usize>> {
    let reach: Vec<HashSet<usize>> = (0..files).map(|file| reachable(file, imports)).collect();
    let mut groups: Vec<HashSet<usize>> = Vec::new();
    for file in 0..files {
        if reach[file].contains(&file) && !groups.iter().any(|group| group.contains(&file)) {
            groups.push(reach[file].iter().copied().filter(|other| reach[*other].contains(&file)).collect());
        }
    }
    groups
}

/// The files that `start` reaches by one import or more.
fn reachable(start: usize, imports: &[Import]) -> HashSet<usize> {
    let mut found = HashSet::new();
    let mut next = vec![start];
    while let Some(file) = next.pop() {
        next.extend(imports.iter().filter(|i| i.from == file && found.insert(i.to)).map(|i| i.to));
    }
    found
}

#[cfg(test)]
mod tests;
