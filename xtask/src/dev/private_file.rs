//! Files that only their owner can read: secrets, and everything else in the data folder.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rand::TryRng as _;

/// The content of a secret file. `generate` makes the content of a missing file.
pub(super) fn secret(path: &Path, generate: impl FnOnce() -> Result<String>) -> Result<String> {
    if !path.exists() {
        write(path, &generate()?)?;
    }
    let advice = "delete the data folder, or use another folder with --data DIR";
    let unreadable = || format!("cannot read {}: {advice}", path.display());
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).with_context(unreadable)?;
    let text = std::fs::read_to_string(path).with_context(unreadable)?;
    let text = text.trim_end();
    ensure!(!text.is_empty(), "{} is empty: {advice}", path.display());
    Ok(text.to_owned())
}

/// Writes the whole file or nothing. Only the owner can read it.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(path.parent().with_context(what)?).with_context(what)?;
    file.write_all(text.as_bytes()).with_context(what)?;
    file.write_all(b"\n").with_context(what)?;
    file.as_file().sync_all().with_context(what)?;
    file.persist(path).with_context(what)?;
    Ok(())
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).context("the system returned no random bytes")?;
    Ok(bytes)
}
