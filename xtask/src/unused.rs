//! Dependencies that no source file of a crate names. A dependency that only generated code needs, or that only switches
//! features on, is listed in `package.metadata.cargo-machete.ignored` of the crate's Cargo.toml.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use proc_macro2::{TokenStream, TokenTree};
use serde_json::Value;

use crate::project::{cargo, output};

/// Checks all crates of the workspace; the error lists every unused dependency.
pub(crate) fn check() -> Result<()> {
    let text = output(cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    let mut unused = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata lists no packages")? {
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

/// The dependencies of a package that are neither among the words of its sources nor ignored, as `package: dependency`.
fn unused_of(package: &Value, words: &HashSet<String>) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let ignored = list(&package["metadata"]["cargo-machete"]["ignored"]);
    list(&package["dependencies"])
        .iter()
        .filter(|dependency| !ignored.contains(&dependency["name"]))
        .filter_map(|dependency| dependency["rename"].as_str().or_else(|| dependency["name"].as_str()))
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
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let tokens: TokenStream = text.parse().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
            collect(tokens, words);
        }
    }
    Ok(())
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
}
