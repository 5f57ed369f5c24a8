//! Dependencies that no source file of a crate names, and dependencies of the workspace that no member names. A dependency that only generated code needs, or that only switches
//! features on, is listed in `package.metadata.cargo-machete.ignored` of the crate's Cargo.toml.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use proc_macro2::{TokenStream, TokenTree};
use serde_json::Value;
use toml::Table;

use crate::project::{metadata, root};

/// Checks all crates of the workspace; the error lists every unused dependency.
pub(crate) fn check() -> Result<()> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let table = read_text(&root().join("Cargo.toml"))?.parse().context("cargo cannot read Cargo.toml")?;
    let mut unused = unused_of_workspace(&table, packages);
    for package in packages {
        let manifest = Path::new(package["manifest_path"].as_str().context("a package without a manifest")?);
        let mut words = HashSet::new();
        read_folder(manifest.parent().unwrap_or(manifest), &mut words)?;
        unused.extend(unused_of(package, &words));
    }
    if !unused.is_empty() {
        bail!("unused dependencies:\n{}", unused.join("\n"));
    }
    Ok(())
}

/// The entries of `workspace.dependencies` that no member depends on.
fn unused_of_workspace(manifest: &Table, packages: &[Value]) -> Vec<String> {
    let dependencies = packages.iter().filter_map(|package| package["dependencies"].as_array()).flatten();
    let used: HashSet<&str> = dependencies.filter_map(name_in_code).collect();
    let table = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let names = table.and_then(toml::Value::as_table).into_iter().flat_map(Table::keys);
    names.filter(|name| !used.contains(name.as_str())).map(|name| format!("workspace: {name}")).collect()
}

/// The name under which a package knows its dependency.
fn name_in_code(dependency: &Value) -> Option<&str> {
    dependency["rename"].as_str().or_else(|| dependency["name"].as_str())
}

/// The dependencies of a package that are neither among the words of its sources nor ignored, as `package: dependency`.
fn unused_of(package: &Value, words: &HashSet<String>) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let ignored = list(&package["metadata"]["cargo-machete"]["ignored"]);
    list(&package["dependencies"])
        .iter()
        .filter(|dependency| !ignored.contains(&dependency["name"]))
        .filter_map(name_in_code)
        .filter(|name| !words.contains(&name.replace('-', "_")))
        .map(|name| format!("{}: {name}", package["name"].as_str().unwrap_or_default()))
        .collect()
}

/// Adds the identifiers of all Rust files in a folder and below.
fn read_folder(folder: &Path, words: &mut HashSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            read_folder(&path, words)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let tokens: TokenStream =
                read_text(&path)?.parse().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
            collect(tokens, words);
        }
    }
    Ok(())
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn collect(tokens: TokenStream, words: &mut HashSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => drop(words.insert(ident.to_string())),
            TokenTree::Group(group) => collect(group.stream(), words),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dependency_is_used_where_its_name_is() {
        let mut words = HashSet::new();
        collect("use used_one::X; fn f() { call!(in_macro::y) }".parse().unwrap(), &mut words);
        let names = ["used-one", "in-macro", "forgotten", "kept"].map(|name| json!({ "name": name }));
        let package =
            json!({ "name": "p", "dependencies": names, "metadata": { "cargo-machete": { "ignored": ["kept"] } } });
        assert_eq!(unused_of(&package, &words), ["p: forgotten"]);
    }

    #[test]
    fn an_entry_of_the_workspace_is_used_where_a_member_names_it() {
        let manifest = "[workspace.dependencies]\nused = \"1\"\nrenamed = \"1\"\nforgotten = \"1\"".parse().unwrap();
        let members = [json!({ "dependencies": [{ "name": "used" }, { "name": "other", "rename": "renamed" }] })];
        assert_eq!(unused_of_workspace(&manifest, &members), ["workspace: forgotten"]);
    }
}
