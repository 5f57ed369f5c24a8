//! The imports of a crate: every `use` declaration and every path in code that reaches another file of the crate.
//! A module that re-exports (`pub use`) what its own child modules define does not import it, unless the module's own code
//! uses the name. Every other re-export is an import.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{ImplItem, Item, ItemMod, ItemUse, Macro, TraitItem, Visibility};

use super::tree::{Names, SourceFile, Tree, is_test, leaves};

/// One file of a crate reaches another. The files are indexes into [`Tree::files`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The path as written.
    pub(super) name: String,
    pub(super) line: usize,
}

/// All imports of a crate: for two files only the first.
pub(super) fn imports(tree: &Tree) -> Vec<Import> {
    let mut found: Vec<Import> = Vec::new();
    for (from, file) in tree.files.iter().enumerate() {
        for import in of_file(tree, from, file) {
            if !found.iter().any(|known| (known.from, known.to) == (import.from, import.to)) {
                found.push(import);
            }
        }
    }
    found
}

fn of_file(tree: &Tree, from: usize, file: &SourceFile) -> Vec<Import> {
    let mut visitor = Visitor { tree, from, module: file.module.clone(), found: Vec::new() };
    visitor.visit_file(&file.syntax);
    visitor.found
}

struct Visitor<'a> {
    tree: &'a Tree,
    from: usize,
    /// The module that is being visited: the file's, or an inline one in it.
    module: Names,
    found: Vec<Import>,
}

impl Visitor<'_> {
    fn path(&mut self, path: &[String], line: usize) {
        if let Some(to) = self.tree.resolve(&self.module, path).filter(|to| *to != self.from) {
            self.found.push(Import { from: self.from, to, name: path.join("::"), line });
        }
    }

    /// Whether a module below the visited one defines the name.
    fn is_from_child(&self, path: &[String]) -> bool {
        let definer = self.tree.resolve(&self.module, path).map(|file| &self.tree.files[file].module);
        definer.is_some_and(|definer| definer.starts_with(&self.module))
    }

    /// The body of a macro call is no syntax tree: paths are found by their first name and its `::`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Names::new();
        let mut line = 0;
        let mut colons = 2;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end(&mut path, line);
                    }
                    if path.is_empty() {
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.end(&mut path, line);
                    colons = 2;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.end(&mut path, line);
    }

    fn end(&mut self, path: &mut Names, line: usize) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.path(&path, line);
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::Type(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if !matches!(item, ImplItem::Fn(item) if is_test(&item.attrs)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        if !matches!(item, TraitItem::Fn(item) if is_test(&item.attrs)) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let private = matches!(item.vis, Visibility::Inherited);
        for leaf in leaves(&item.tree) {
            if private || !self.is_from_child(&leaf.path) {
                self.path(&leaf.path, leaf.line);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |segment| segment.ident.span().start().line);
        // One name alone is `self`, a local name or a re-export.
        if names != ["self"] {
            self.path(&names, line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    /// `pub(in path)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    /// Attributes, such as `#[serde(...)]`, name no files.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}
