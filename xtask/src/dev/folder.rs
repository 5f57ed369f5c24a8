//! The data folder of the development launcher: database, master key, token secret, written settings, logs. One
//! launcher at a time works on it, and it is never guessed at: a folder that looks wrong is refused with a reason.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rand::TryRng as _;
use serde::{Deserialize, Serialize};

/// Marks the folder as ours; its content is the version of the layout.
const MARK: &str = "chatbox-dev";
const LAYOUT: &str = "1";
const DATABASE: &str = "chatbox.db";
const KEYRING: &str = "keyring";
const SECRET: &str = "hs256_secret";
const CHAT: &str = "chat.json";
/// Holds `name pid` lines while the services run: after a launcher was killed, they may still be there.
const SERVICES: &str = "services";

/// A data folder this process has for itself until it is dropped.
pub(super) struct Folder {
    path: PathBuf,
    secret: String,
    /// Holding the file keeps the lock; the kernel lets go of it however this process ends.
    _lock: File,
}

/// What `cargo xtask chat` needs to connect.
#[derive(Serialize, Deserialize)]
pub(crate) struct ChatFile {
    /// The gateway's WebSocket address.
    pub(crate) url: String,
    /// A token without roles.
    pub(crate) user_token: String,
    /// A token with the role `admin`.
    pub(crate) admin_token: String,
}

impl ChatFile {
    /// Reads what the launcher wrote into its data folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CHAT);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("{} is not there: start `cargo xtask dev` first, or give --url and --token", path.display())
        })?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged: start `cargo xtask dev` again", path.display()))
    }
}

/// The data folder where none is named.
pub(crate) fn default_path() -> PathBuf {
    crate::project::root().join(".chatbox")
}

impl Folder {
    /// Opens or makes the folder, with a master key and a token secret in it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let other = "use another one with --data DIR";
        if path.exists() && !path.is_dir() {
            bail!("{shown} is not a folder: {other}");
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("the data folder {shown} cannot be made: {other}"))?;
        let path =
            &path.canonicalize().with_context(|| format!("the data folder {shown} cannot be opened: {other}"))?;

        let mark = path.join(MARK);
        match std::fs::read_to_string(&mark) {
            Ok(layout) if layout.trim() == LAYOUT => {}
            Ok(layout) => {
                bail!("{shown} was made by another version of the launcher ({}): {other}, or delete it", layout.trim())
            }
            Err(_) if std::fs::read_dir(path)?.next().is_some() => {
                bail!("{shown} holds other things and is no data folder of chatbox: {other}")
            }
            Err(_) => {
                write(&mark, LAYOUT).with_context(|| format!("cannot write to the data folder {shown}: {other}"))?
            }
        }

        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .with_context(|| format!("cannot write to the data folder {shown}: {other}"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another `cargo xtask dev` is running on {shown}: stop it, or {other}")
            }
            Err(TryLockError::Error(error)) => return Err(error).context(format!("{shown} cannot be locked: {other}")),
        }
        left_over(path)?;

        let keyring = path.join(KEYRING);
        ensure!(
            keyring.exists() || !path.join(DATABASE).exists(),
            "{shown} has a database and no keyring, so its conversations cannot be read any more: \
             put {KEYRING} back, {other}, or delete the folder"
        );
        secret_file(&keyring, || Ok(format!("dev:{}", BASE64_STANDARD.encode(random::<32>()?))))?;
        let secret = secret_file(&path.join(SECRET), || Ok(BASE64_URL_SAFE_NO_PAD.encode(random::<48>()?)))?;
        Ok(Self { path: path.clone(), secret, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The secret that signs tokens.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    pub(super) fn secret_file(&self) -> PathBuf {
        self.path.join(SECRET)
    }

    pub(super) fn keyring(&self) -> PathBuf {
        self.path.join(KEYRING)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    pub(super) fn log(&self, service: &str) -> PathBuf {
        self.path.join(format!("{service}.log"))
    }

    pub(super) fn write_chat(&self, chat: &ChatFile) -> Result<()> {
        write(&self.path.join(CHAT), &serde_json::to_string_pretty(chat)?)
    }

    /// Writes a file with settings into the folder and returns its path.
    pub(super) fn write_settings(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        write(&path, text)?;
        Ok(path)
    }

    /// Notes the running services, for a launcher that comes after this one was killed.
    pub(super) fn remember<'a>(&self, services: impl IntoIterator<Item = (&'a str, u32)>) -> Result<()> {
        let lines: Vec<String> = services.into_iter().map(|(name, pid)| format!("{name} {pid}")).collect();
        write(&self.path.join(SERVICES), &lines.join("\n"))
    }

    /// The services have ended.
    pub(super) fn forget(&self) {
        for name in [SERVICES, CHAT] {
            if let Err(error) = std::fs::remove_file(self.path.join(name))
                && error.kind() != std::io::ErrorKind::NotFound
            {
                eprintln!("note: {name} cannot be removed from {}: {error}", self.path.display());
            }
        }
    }
}

/// Refuses a folder on which services of a launcher that was killed are still working.
fn left_over(path: &Path) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(path.join(SERVICES)) else { return Ok(()) };
    let alive: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        // Process ids are given out again: the program must be ours as well.
        .filter(|(name, pid)| {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            program.file_name().is_some_and(|file| file.to_string_lossy().trim_end_matches(" (deleted)") == *name)
        })
        .map(|(_, pid)| pid)
        .collect();
    let pids = alive.join(" ");
    ensure!(
        alive.is_empty(),
        "services of an earlier launcher still run on {}: end them with `kill {pids}`",
        path.display()
    );
    Ok(())
}

/// The content of a secret file, made if it is not there; readable for its owner only.
fn secret_file(path: &Path, make: impl FnOnce() -> Result<String>) -> Result<String> {
    if !path.exists() {
        write(path, &make()?)?;
    }
    let damaged =
        || format!("{} cannot be read: delete the data folder, or use another one with --data DIR", path.display());
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).with_context(damaged)?;
    let text = std::fs::read_to_string(path).with_context(damaged)?;
    let text = text.trim_end();
    ensure!(
        !text.is_empty(),
        "{} is empty: delete the data folder, or use another one with --data DIR",
        path.display()
    );
    Ok(text.to_owned())
}

/// Writes a file as a whole or not at all, for its owner only.
fn write(path: &Path, text: &str) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(path.parent().with_context(what)?).with_context(what)?;
    file.write_all(text.as_bytes()).with_context(what)?;
    file.write_all(b"\n").with_context(what)?;
    file.as_file().sync_all().with_context(what)?;
    file.persist(path).with_context(what)?;
    Ok(())
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).context("the system gives no random bytes")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        let error =
            Folder::open(path).err().map(|error| format!("{error:#}")).unwrap_or_else(|| panic!("it was taken"));
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_made_once_and_for_their_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let (secret, keyring) = {
            let folder = Folder::open(&path).unwrap();
            (folder.secret().to_owned(), std::fs::read_to_string(folder.keyring()).unwrap())
        };
        assert!(secret.len() >= 64);
        let (kid, key) = keyring.trim_end().split_once(':').unwrap();
        assert_eq!((kid, BASE64_STANDARD.decode(key).unwrap().len()), ("dev", 32));
        assert_eq!(mode(&path), 0o700);
        std::fs::set_permissions(path.join(SECRET), Permissions::from_mode(0o644)).unwrap();

        let folder = Folder::open(&path).unwrap();
        assert_eq!(folder.secret(), secret);
        assert_eq!(std::fs::read_to_string(folder.keyring()).unwrap(), keyring);
        assert_eq!((mode(&folder.keyring()), mode(&folder.secret_file())), (0o600, 0o600));
    }

    #[test]
    fn one_launcher_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(parent.path()).unwrap();
        assert!(refusal(parent.path()).contains("another `cargo xtask dev` is running"));
        drop(folder);
        assert!(Folder::open(parent.path()).is_ok());
    }

    #[test]
    fn what_is_no_data_folder_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(refusal(&file).contains("not a folder"));
        assert!(refusal(parent.path()).contains("holds other things"));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
        assert!(refusal(Path::new("/proc/chatbox")).contains("cannot be made"));
    }

    #[test]
    fn another_layout_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join(MARK), "0").unwrap();
        assert!(refusal(parent.path()).contains("another version"));
    }

    #[test]
    fn a_database_without_its_keyring_is_not_given_a_new_one() {
        let parent = tempfile::tempdir().unwrap();
        drop(Folder::open(parent.path()).unwrap());
        std::fs::write(parent.path().join(DATABASE), "").unwrap();
        std::fs::remove_file(parent.path().join(KEYRING)).unwrap();
        assert!(refusal(parent.path()).contains("no keyring"));
        assert!(!parent.path().join(KEYRING).exists());
    }

    #[test]
    fn services_left_over_are_named_and_strangers_with_their_numbers_are_not() {
        let parent = tempfile::tempdir().unwrap();
        let me = std::process::id();
        let program = std::env::current_exe().unwrap();
        let folder = Folder::open(parent.path()).unwrap();
        folder.remember([(program.file_name().unwrap().to_str().unwrap(), me)]).unwrap();
        drop(folder);
        assert!(refusal(parent.path()).contains(&format!("kill {me}")));
        write(&parent.path().join(SERVICES), &format!("brain {me}\nbrain 4000000000")).unwrap();
        assert!(Folder::open(parent.path()).is_ok());
    }

    #[test]
    fn the_chat_client_is_told_to_start_the_launcher_first() {
        let parent = tempfile::tempdir().unwrap();
        let error = format!("{:#}", ChatFile::read(parent.path()).err().unwrap());
        assert!(error.contains("cargo xtask dev"), "{error}");
    }
}
