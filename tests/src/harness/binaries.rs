//! The paths of the built services. The tests run what `cargo build` made; they build nothing.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Names the folder with the services to run. Default: the folder of the test's own build.
pub const FOLDER: &str = "CHATBOX_BINARIES";

/// Which build of the services to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The build of this test.
    Same,
    /// The release build, if there is one; else the build of this test.
    PreferRelease,
}

/// The path of the program of the service `name`: `brain` or `gateway`.
///
/// # Errors
/// It was not built.
pub fn find(name: &str, profile: Profile) -> Result<PathBuf> {
    let own = env::current_exe().context("cannot tell where this test runs from")?;
    // .../<profile>/deps/test-hash for tests, .../<profile>/load for binaries.
    let folder = own.parent().context("this test has no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let released = folder.parent().map(|target| target.join("release"));
    let candidates = match profile {
        Profile::Same => vec![folder.to_path_buf()],
        Profile::PreferRelease => released.into_iter().chain([folder.to_path_buf()]).collect(),
    };
    let candidates: Vec<PathBuf> = env::var_os(FOLDER).map(PathBuf::from).into_iter().chain(candidates).collect();
    for folder in &candidates {
        let path = folder.join(format!("chatbox-{name}"));
        if is_file(&path) {
            return Ok(path);
        }
    }
    bail!("`chatbox-{name}` is not built: run `cargo build --workspace` first (looked in {candidates:?})")
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file())
}
