//! The modules of one crate as its sources declare them: which file holds which module, and which names a module
//! imports. It resolves a path to the file that defines the name, and judges nothing.
//!
//! Modules behind `#[cfg(test)]` are no part of the tree.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::{Attribute, Item, ItemMod, UseTree};

/// A path as its names, such as `crate`, `store`, `Store`.
pub(super) type Names = Vec<String>;

/// So many re-exports are followed for one name; more are a circle of re-exports.
const MAX_STEPS: usize = 16;

/// All modules of a crate.
pub(super) struct Tree {
    /// The source files; the first is `lib.rs` or `main.rs`.
    pub(super) files: Vec<SourceFile>,
    /// The modules that the first file declares, in its order.
    pub(super) rooms: Vec<String>,
    modules: HashMap<Names, Module>,
}

/// A parsed source file.
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    /// The path of the module that the file holds, without `crate`.
    pub(super) module: Names,
    pub(super) syntax: syn::File,
}

struct Module {
    /// Index into [`Tree::files`].
    file: usize,
    /// Imported name → path as written.
    uses: HashMap<String, Names>,
}

impl Tree {
    /// Reads a crate from its `lib.rs` or `main.rs`.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { files: Vec::new(), rooms: Vec::new(), modules: HashMap::new() };
        tree.add_file(root, root.parent().unwrap_or(Path::new("")), Vec::new())?;
        let declared = |item: &Item| match item {
            Item::Mod(module) if !is_test(&module.attrs) => Some(module.ident.to_string()),
            _ => None,
        };
        tree.rooms = tree.files[0].syntax.items.iter().filter_map(declared).collect();
        Ok(tree)
    }

    /// Adds a file and the modules below it. `folder` is where the files of its child modules are.
    fn add_file(&mut self, path: &Path, folder: &Path, module: Names) -> Result<()> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let syntax = syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
        let items = syntax.items.clone();
        self.files.push(SourceFile { path: path.to_owned(), module: module.clone(), syntax });
        self.add_module(self.files.len() - 1, &items, folder, module)
    }

    fn add_module(&mut self, file: usize, items: &[Item], folder: &Path, path: Names) -> Result<()> {
        let mut uses = HashMap::new();
        for item in items {
            match item {
                Item::Use(item) if !is_test(&item.attrs) => {
                    for import in leaves(&item.tree) {
                        uses.insert(import.alias, import.path);
                    }
                }
                Item::Mod(item) if !is_test(&item.attrs) => self.add_child(file, item, folder, &path)?,
                _ => {}
            }
        }
        self.modules.insert(path, Module { file, uses });
        Ok(())
    }

    fn add_child(&mut self, file: usize, item: &ItemMod, folder: &Path, parent: &[String]) -> Result<()> {
        let name = item.ident.to_string();
        let below = folder.join(&name);
        let path = [parent, std::slice::from_ref(&name)].concat();
        match &item.content {
            Some((_, items)) => self.add_module(file, items, &below, path),
            None => {
                let (flat, nested) = (folder.join(format!("{name}.rs")), below.join("mod.rs"));
                self.add_file(if flat.is_file() { &flat } else { &nested }, &below, path)
            }
        }
    }

    /// The file that defines what `path` means in `module`; `None` for other crates and for local names.
    pub(super) fn resolve(&self, module: &[String], path: &[String]) -> Option<usize> {
        let (found, _) = self.walk(module, path, MAX_STEPS)?;
        Some(self.modules.get(&found)?.file)
    }

    /// The deepest module that `path` reaches, and whether nothing of the path is left (the path names a module).
    fn walk(&self, module: &[String], path: &[String], steps: usize) -> Option<(Names, bool)> {
        let mut at = module.to_vec();
        for (index, name) in path.iter().enumerate() {
            let child = [&at[..], std::slice::from_ref(name)].concat();
            match name.as_str() {
                "crate" => at.clear(),
                "self" | "*" => {}
                "super" => drop(at.pop()?),
                _ if self.modules.contains_key(&child) => at = child,
                _ => {
                    let import = self.modules.get(&at)?.uses.get(name);
                    let target = import.filter(|_| steps > 0).and_then(|import| self.walk(&at, import, steps - 1));
                    return match target {
                        Some((found, true)) => self.walk(&found, &path[index + 1..], steps - 1),
                        Some(found) => Some(found),
                        // The name is defined here, or comes from another crate.
                        None if import.is_some() || index == 0 => None,
                        None => Some((at, false)),
                    };
                }
            }
        }
        Some((at, true))
    }
}

/// One name that a `use` declaration imports.
pub(super) struct Leaf {
    pub(super) path: Names,
    /// The name under which the importing module knows it.
    pub(super) alias: String,
    pub(super) line: usize,
}

/// All names of a `use` declaration.
pub(super) fn leaves(tree: &UseTree) -> Vec<Leaf> {
    let mut found = Vec::new();
    collect(tree, &mut Vec::new(), &mut found);
    found
}

fn collect(tree: &UseTree, prefix: &mut Names, found: &mut Vec<Leaf>) {
    let mut leaf = |name: &syn::Ident, alias: &syn::Ident| {
        // `a::{self}` imports `a`.
        let own = name == "self" && !prefix.is_empty();
        let path = if own { prefix.clone() } else { [&prefix[..], &[name.to_string()]].concat() };
        let alias = if own && alias == "self" { path.last().cloned().unwrap_or_default() } else { alias.to_string() };
        found.push(Leaf { path, alias, line: name.span().start().line });
    };
    match tree {
        UseTree::Name(name) => leaf(&name.ident, &name.ident),
        UseTree::Rename(rename) => leaf(&rename.ident, &rename.rename),
        UseTree::Glob(glob) => {
            let path = [&prefix[..], &["*".to_owned()]].concat();
            let line = glob.star_token.spans[0].start().line;
            found.push(Leaf { alias: path.join("::"), path, line });
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| collect(tree, prefix, found)),
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            collect(&path.tree, prefix, found);
            prefix.pop();
        }
    }
}

/// Is this item compiled for tests alone?
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => {
            let words = list.tokens.to_string();
            words.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test") && !words.contains("not")
        }
        _ => false,
    })
}
