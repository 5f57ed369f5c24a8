//! Licences and banned crates, by `deny.toml`. cargo-deny takes minutes to compile, so the rules that matter here are
//! checked against what cargo itself says about the graph; an installed cargo-deny is used as well.

mod spdx;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::project::{cargo, output, root, run as execute};

#[derive(Deserialize)]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
    exceptions: Vec<LicenseException>,
}

#[derive(Deserialize)]
struct LicenseException {
    #[serde(rename = "crate")]
    name: String,
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
}

/// A crate that is compiled into the programs, their tests or their build scripts.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    /// Where it is from, other than the crates.io registry and this workspace.
    foreign: Option<String>,
    license: String,
}

/// Checks the graph; an error lists all that is wrong.
pub(crate) fn run() -> Result<()> {
    let text = std::fs::read_to_string(root().join("deny.toml")).context("deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("deny.toml")?;
    ensure!(
        rules.sources.unknown_registry == "deny" && rules.sources.unknown_git == "deny",
        "deny.toml: sources must be denied"
    );
    let mut crates = BTreeSet::new();
    for target in &rules.graph.targets {
        crates.extend(graph(target)?);
    }
    let faults = rules.check(&crates);
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    println!("{} crates: licences, bans and sources are as deny.toml wants them", crates.len());
    let twice = several_versions(&crates);
    println!("in more than one version (allowed): {}", twice.join(", "));
    if crate::project::on_path("cargo-deny").is_some() {
        execute(cargo().args(["deny", "--offline", "check", "bans", "licenses", "sources"]))?;
    }
    Ok(())
}

/// The crates cargo compiles for a target, other crates' optional dependencies left out.
fn graph(target: &str) -> Result<Vec<Crate>> {
    let tree =
        output(
            cargo()
                .args(["tree", "--locked", "--workspace", "--target", target, "--edges", "normal,build,dev"])
                .args(["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"]),
        )?;
    tree.lines().filter(|line| !line.is_empty()).filter_map(|line| parse(line).transpose()).collect()
}

/// Reads `name v1.2.3 (where)|licence`. `None`: a crate of this workspace.
fn parse(line: &str) -> Result<Option<Crate>> {
    let (package, license) = line.split_once('|').with_context(|| format!("cargo tree said {line}"))?;
    let mut parts = package.splitn(3, ' ');
    let (Some(name), Some(version)) = (parts.next(), parts.next()) else { bail!("cargo tree said {line}") };
    let place = parts.next().unwrap_or_default().replace("(proc-macro)", "");
    let place = place.trim().trim_start_matches('(').trim_end_matches(')').to_owned();
    if place.starts_with(&*root().to_string_lossy()) {
        return Ok(None);
    }
    Ok(Some(Crate {
        name: name.to_owned(),
        version: version.trim_start_matches('v').to_owned(),
        foreign: (!place.is_empty()).then_some(place),
        license: license.to_owned(),
    }))
}

impl Rules {
    fn check(&self, crates: &BTreeSet<Crate>) -> Vec<String> {
        let mut faults = Vec::new();
        for Crate { name, version, foreign, license } in crates {
            if let Some(ban) = self.bans.deny.iter().find(|ban| ban.name == *name) {
                faults.push(format!("{name} {version} is banned: {}", ban.reason));
            }
            if let Some(place) = foreign {
                faults.push(format!("{name} {version} comes from {place}, not from crates.io"));
            }
            let exception = self.licenses.exceptions.iter().find(|exception| exception.name == *name);
            let allowed =
                |id: &str| self.licenses.allow.contains(id) || exception.is_some_and(|more| more.allow.contains(id));
            match spdx::satisfied(license, allowed) {
                Some(true) => {}
                Some(false) => faults.push(format!("{name} {version}: the licence {license} is not allowed")),
                None => faults.push(format!("{name} {version}: the licence {license:?} cannot be read")),
            }
        }
        let used = |name: &str| crates.iter().any(|item| item.name == name);
        for exception in self.licenses.exceptions.iter().filter(|exception| !used(&exception.name)) {
            faults
                .push(format!("deny.toml has a licence exception for {}, which is not used any more", exception.name));
        }
        faults
    }
}

fn several_versions(crates: &BTreeSet<Crate>) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for item in crates {
        versions.entry(&item.name).or_default().insert(&item.version);
    }
    versions.into_iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        toml::from_str(
            r#"
            graph = { targets = [] }
            licenses = { allow = ["MIT"], exceptions = [{ crate = "roots", allow = ["CDLA-Permissive-2.0"] }] }
            bans = { deny = [{ crate = "ring", reason = "one provider" }] }
            sources = { unknown-registry = "deny", unknown-git = "deny" }
            "#,
        )
        .unwrap()
    }

    fn crates(lines: &[&str]) -> BTreeSet<Crate> {
        lines.iter().filter_map(|line| parse(line).unwrap()).collect()
    }

    #[test]
    fn what_is_allowed_passes() {
        let good = ["a v1.0.0|MIT", "b v2.0.0 (proc-macro)|GPL-3.0 OR MIT", "roots v1.0.0|CDLA-Permissive-2.0"];
        assert_eq!(rules().check(&crates(&good)), [""; 0]);
    }

    #[test]
    fn every_fault_is_named() {
        let bad = [
            "a v1.0.0|GPL-3.0-only",
            "b v1.0.0|",
            "c v1.0.0 (https://git.example.com/c?rev=1#1)|MIT",
            "ring v0.17.0|MIT",
            "other v1.0.0|CDLA-Permissive-2.0",
        ];
        let faults = rules().check(&crates(&bad)).join("\n");
        for part in ["GPL-3.0-only", "b 1.0.0", "git.example.com", "one provider", "other 1.0.0", "exception for roots"]
        {
            assert!(faults.contains(part), "{part}: {faults}");
        }
    }

    #[test]
    fn crates_of_the_workspace_are_not_asked_for_their_licence() {
        let line = format!("mine v0.1.0 ({})|", root().join("shared").display());
        assert_eq!(parse(&line).unwrap(), None);
    }
}
