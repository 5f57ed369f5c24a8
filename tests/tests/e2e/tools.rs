//! Programs that some tests need and the product does not, such as Python. A test without them says so on standard error
//! and passes.

use std::process::Stdio;

use tokio::process::Command;

/// Whether this shell command succeeds, with `path` as the search path: it tells a program or a library that is there
/// from one that is not.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub(crate) async fn installed(probe: &str, path: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", probe]).env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null());
    let installed = command.status().await.is_ok_and(|status| status.success());
    if !installed {
        eprintln!("SKIPPED: `{probe}` does not succeed here");
    }
    installed
}

/// The search path of this process.
pub(crate) fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default()
}
