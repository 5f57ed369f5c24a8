//! Tests of the tests: services with deliberate faults, each of which must make its test fail. The faults and their tests
//! are listed in `tests/tests/e2e/sabotage.rs`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::fetch;
use crate::project::{cargo, programs, run as execute};
use crate::runner::{Runner, build_programs};

/// The services that have deliberate faults.
const SERVICES: [&str; 2] = ["chatbox-brain", "chatbox-gateway"];
/// The cargo features that contain the faults.
const FEATURES: &str = "chatbox-brain/sabotage,chatbox-gateway/sabotage";
/// Names the folder of the sabotaged services; the test reads it.
const FOLDER: &str = "CHATBOX_SABOTAGED_BINARIES";
/// The test, which is ignored in other runs.
const TEST: &str = "each_fault_makes_its_test_fail";

/// Builds the sabotaged services and runs the test with them.
pub(crate) fn run() -> Result<()> {
    let mongod = fetch::mongod()?;
    let folder = build()?;
    let arguments = ["--workspace", "--test", "e2e", "--", "--ignored", TEST];
    execute(Runner::find().command(&arguments).env(fetch::MONGOD, mongod).env(FOLDER, folder))
}

/// Builds the sabotaged services into a folder of their own.
///
/// Cargo puts them into the folder of the normal services first, because another target folder would compile all
/// dependencies again. The second build puts the normal services back.
fn build() -> Result<PathBuf> {
    let built = programs(false)?;
    let folder = built.parent().unwrap_or(&built).join("sabotaged");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let sabotaged = execute(cargo().args(["build", "--locked", "--workspace", "--bins", "--features", FEATURES]))
        .and_then(|()| copy(&built, &folder));
    build_programs()?;
    sabotaged.map(|()| folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for service in SERVICES {
        // The old copy goes first: a program that runs cannot be overwritten.
        drop(std::fs::remove_file(to.join(service)));
        std::fs::copy(from.join(service), to.join(service)).with_context(|| format!("cannot copy {service}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_replaces_the_one_before() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for content in ["first", "second"] {
            for service in SERVICES {
                std::fs::write(from.path().join(service), content).unwrap();
            }
            copy(from.path(), to.path()).unwrap();
            assert_eq!(std::fs::read_to_string(to.path().join(SERVICES[0])).unwrap(), content);
        }
    }
}
