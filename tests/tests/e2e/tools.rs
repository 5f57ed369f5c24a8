//! Programs that some tests need and the product does not, such as Python. A test without them says so on standard error
//! and passes. With `CHATBOX_REQUIRE_TOOLS=1` it fails.

use std::process::Stdio;

use tokio::process::Command;

/// Makes a missing tool an error.
const REQUIRE: &str = "CHATBOX_REQUIRE_TOOLS";

/// Whether this shell command succeeds, with `path` as the search path: it tells a program or a library that is there
/// from one that is not.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub(crate) async fn installed(probe: &str, path: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", probe]).env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null());
    let installed = command.status().await.is_ok_and(|status| status.success());
    if !installed {
        assert!(
            std::env::var_os(REQUIRE).is_none_or(|value| value != "1"),
            "`{probe}` does not succeed here ({REQUIRE}=1)"
        );
        eprintln!("SKIPPED: `{probe}` does not succeed here");
    }
    installed
}

/// The search path of this process.
pub(crate) fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default()
}
