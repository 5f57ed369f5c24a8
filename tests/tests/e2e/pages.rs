//! The pages as pages: their links lead somewhere, the files that they name exist, their lines are not too long, and every
//! TOML example is a configuration that its service accepts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use chatbox_tests::harness::binaries::{Profile, find};
use chatbox_tests::harness::process::{Launch, run};
use chatbox_tests::harness::start::random_base64;
use tempfile::TempDir;

/// Where pages stand, besides the root.
const FOLDERS: [&str; 4] = ["docs", "docs/decisions", "examples", ".github"];
/// The folders with files that pages name by their path from the root.
const SOURCES: [&str; 12] =
    ["gateway", "brain", "link", "shared", "proto", "client", "tests", "xtask", "docs", "examples", ".ci", ".github"];
/// The columns of prose. Tables and code may be wider.
const COLUMNS: usize = 120;
/// Generated from the services' defaults, whose comments become one line each; `tests/docs.rs` checks it.
const GENERATED: &str = "docs/configuration.md";
/// The folder that the examples have their files in.
const FILES: &str = "/etc/chatbox";

/// A Markdown page.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(path: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, text })
    }

    fn all() -> Result<Vec<Self>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        let mut pages = Vec::new();
        for folder in FOLDERS.iter().map(|folder| root.join(folder)).chain([root.clone()]) {
            for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "md") {
                    pages.push(Self::read(path)?);
                }
            }
        }
        Ok(pages)
    }

    /// The lines outside fenced blocks, with their numbers.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.text.lines().enumerate().filter_map(move |(index, line)| {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
                return None;
            }
            (!fenced).then_some((index + 1, line))
        })
    }

    /// The contents of the fenced blocks in this language.
    fn blocks(&self, language: &str) -> impl Iterator<Item = &str> {
        let fence = format!("```{language}\n");
        let texts: Vec<&str> = self.text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect();
        texts.into_iter()
    }

    /// The targets of links on one line.
    fn links(line: &str) -> impl Iterator<Item = &str> {
        line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
    }

    fn has_heading(&self, anchor: &str) -> bool {
        let headings = self.prose().filter_map(|(_, line)| line.strip_prefix('#'));
        headings.map(|line| slug(line.trim_start_matches('#').trim())).any(|slug| slug == anchor)
    }
}

/// The anchor that a heading gets when the page is shown.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    for page in Page::all()? {
        let folder = page.path.parent().context("a page stands in a folder")?;
        for (number, line) in page.prose() {
            for link in Page::links(line).filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
                let place = format!("{}:{number}: {link}", page.path.display());
                let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
                let target = if file.is_empty() { page.path.clone() } else { folder.join(file) };
                ensure!(target.exists(), "{place} does not exist");
                if let Some(anchor) = anchor {
                    ensure!(Page::read(target)?.has_heading(anchor), "{place} names no heading");
                }
            }
        }
    }
    Ok(())
}

/// All files below a folder.
fn files_below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("node_modules") {
            files_below(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// A path from the root must exist. A Rust file may be named by the end of its path, such as `frame/json.rs`.
#[test]
fn every_file_that_is_named_exists() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let mut files = Vec::new();
    for folder in SOURCES {
        files_below(&root.join(folder), &mut files)?;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    for page in Page::all()? {
        for (number, line) in page.prose() {
            for code in line.split('`').skip(1).step_by(2).filter(|code| code.chars().all(plain)) {
                let from_root = code.split_once('/').is_some_and(|(folder, _)| SOURCES.contains(&folder));
                let exists = match () {
                    () if from_root => root.join(code).exists(),
                    () if code.ends_with(".rs") => files.iter().any(|file| file.ends_with(code)),
                    () => true,
                };
                ensure!(exists, "{}:{number}: {code} does not exist", page.path.display());
            }
        }
    }
    Ok(())
}

#[test]
fn prose_is_wrapped() -> Result<()> {
    for page in Page::all()?.iter().filter(|page| !page.path.ends_with(GENERATED)) {
        for (number, line) in page.prose().filter(|(_, line)| !line.starts_with('|')) {
            let width = line.chars().count();
            ensure!(width <= COLUMNS, "{}:{number} has {width} columns", page.path.display());
        }
    }
    Ok(())
}

/// A folder with the files that the examples name.
fn files() -> Result<TempDir> {
    let folder = TempDir::new()?;
    let certified = rcgen::generate_simple_self_signed(["brain".to_owned()])?;
    let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    for (name, text) in [
        ("ca.pem", certificate.clone()),
        ("brain.pem", certificate.clone()),
        ("brain.key", key.clone()),
        ("gateway.pem", certificate),
        ("gateway.key", key),
        ("keyring", format!("2026-11:{}", random_base64())),
        ("hs256_secret", random_base64()),
        ("mongodb_uri", "mongodb://127.0.0.1:27017/?replicaSet=rs0".to_owned()),
    ] {
        fs::write(folder.path().join(name), text)?;
    }
    Ok(folder)
}

/// The example with its certificates and secrets in this folder: those in `/etc/chatbox`, and those with a relative path.
fn with_files_in(example: &str, folder: &str) -> String {
    let relative = ["ca.pem", "brain.pem", "brain.key", "gateway.pem", "gateway.key"];
    relative.iter().fold(example.replace(FILES, folder), |example, name| {
        example.replace(&format!("\"{name}\""), &format!("\"{folder}/{name}\""))
    })
}

/// The environment of an example: the secret that it does not take from a file, and the providers' keys.
fn environment(service: &str, example: &str) -> Launch {
    let (file_key, variable, value) = match service {
        "brain" => ("keyring_file", "CHATBOX__KEYS__KEYRING", format!("2026-11:{}", random_base64())),
        _ => ("hs256_secret_file", "CHATBOX__AUTH__HS256_SECRET", random_base64()),
    };
    let launch = Launch::default();
    let launch = if example.contains(file_key) { launch } else { launch.env(variable, value) };
    let keys = example.split("api_key_env = \"").skip(1).filter_map(|rest| rest.split('"').next());
    keys.fold(launch, |launch, variable| launch.env(variable, "any"))
}

/// `check-config` on every example. Its first line names the service: `# brain.toml` or `# gateway.toml`.
#[tokio::test]
async fn every_toml_example_is_accepted() -> Result<()> {
    let folder = files()?;
    let path = folder.path().display().to_string();
    let mut checked = 0;
    for page in Page::all()?.iter().filter(|page| !page.path.ends_with(GENERATED)) {
        for example in page.blocks("toml") {
            let place = page.path.display();
            let service = match example.lines().next() {
                Some("# brain.toml") => "brain",
                Some("# gateway.toml") => "gateway",
                _ => bail!("{place}: an example begins with neither `# brain.toml` nor `# gateway.toml`\n{example}"),
            };
            let file = folder.path().join("example.toml");
            fs::write(&file, with_files_in(example, &path))?;
            let mut launch = environment(service, example);
            launch.args = ["check-config", "--config"].map(str::to_owned).to_vec();
            launch.args.push(file.display().to_string());
            let output = run(&find(service, Profile::Same)?, &launch).await?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{place}: {service} refuses\n{example}\n{said}");
            checked += 1;
        }
    }
    ensure!(checked >= 3, "only {checked} examples were found");
    Ok(())
}
