//! Test of the tests: each deliberate fault of the services must make the test fail that guards against it.
//!
//! The faults exist only in services built with the feature `sabotage`. `cargo xtask test --only sabotage` builds them and
//! runs this test.

use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::binaries::FOLDER;
use chatbox_tests::harness::process::SABOTAGE;
use tokio::process::Command;

/// Names the folder with the sabotaged services.
const SABOTAGED: &str = "CHATBOX_SABOTAGED_BINARIES";

/// Each fault with the test that must fail.
const FAULTS: [(&str, &str); 4] = [
    (
        "no_fence_check",
        "two_brains::an_owner_that_is_paused_beyond_its_lease_and_continued_writes_and_shows_nothing_more",
    ),
    ("no_gap_check", "link_cut::a_link_that_is_cut_again_and_again_in_an_answer_leaves_no_gap"),
    ("ack_before_write", "store_down::a_killed_server_comes_back_without_a_restart_of_chatbox"),
    ("w1", "majority::without_a_majority_nothing_is_acknowledged"),
];

#[tokio::test]
#[ignore = "needs services built with the feature `sabotage`: run `cargo xtask test --only sabotage`"]
async fn each_fault_makes_its_test_fail() -> Result<()> {
    let folder = std::env::var_os(SABOTAGED).with_context(|| format!("{SABOTAGED} is not set"))?;
    // Relative to the root of the workspace, not to the folder in which tests run.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).canonicalize()?;
    for (fault, test) in FAULTS {
        // Without a fault the same services pass, so the fault is the cause of the failure below.
        let well = run(&folder, None, test).await?;
        ensure!(well.status.success(), "{test} fails without any fault:\n{}", text(&well));
        let faulty = run(&folder, Some(fault), test).await?;
        ensure!(!faulty.status.success(), "{test} passes under {fault}");
        ensure!(
            text(&faulty).contains(&format!("{test} ... FAILED")),
            "{test} did not run to its end:\n{}",
            text(&faulty)
        );
    }
    Ok(())
}

/// Runs one test of this program in a process of its own.
async fn run(folder: &Path, fault: Option<&str>, test: &str) -> Result<Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(FOLDER, folder).kill_on_drop(true);
    match fault {
        Some(fault) => command.env(SABOTAGE, fault),
        None => command.env_remove(SABOTAGE),
    };
    Ok(command.output().await?)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
