//! The data folder of the development launcher: database, master key, token secret, generated settings, logs. A lock
//! keeps a second launcher out. A folder that is not a data folder is rejected with the reason and stays unchanged.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::private_file::{self, random};

/// The file that marks a data folder. It contains the version of the layout.
const MARK: &str = "chatbox-dev";
const LAYOUT: &str = "1";
const DATABASE: &str = "chatbox.db";
const KEYRING: &str = "keyring";
const SECRET: &str = "hs256_secret";
const CHAT: &str = "chat.json";
/// One line `program pid` for each running service. The file remains after the launcher was killed.
const SERVICES: &str = "services";
/// The advice at the end of an error.
const OTHER: &str = "use another folder with --data DIR";

/// A data folder, locked by this process until the value is dropped.
pub(super) struct Folder {
    path: PathBuf,
    secret: String,
    /// The open file holds the lock. The kernel releases it however this process ends.
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
    /// Reads the file that the launcher wrote into its data folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CHAT);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}: start `cargo xtask dev` first, or give --url and --token", path.display())
        })?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is invalid: start `cargo xtask dev` again", path.display()))
    }
}

/// The data folder without `--data`.
pub(crate) fn default_path() -> PathBuf {
    crate::project::root().join(".chatbox")
}

impl Folder {
    /// Opens the folder, or creates it with a master key and a token secret.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = create(path)?;
        check_layout(&path)?;
        let lock = lock(&path)?;
        check_services(&path)?;
        let keyring = path.join(KEYRING);
        ensure!(
            keyring.exists() || !path.join(DATABASE).exists(),
            "{} has a database but no keyring, so its conversations cannot be decrypted: \
             restore {KEYRING}, {OTHER}, or delete the folder",
            path.display()
        );
        private_file::secret(&keyring, || Ok(format!("dev:{}", BASE64_STANDARD.encode(random::<32>()?))))?;
        let secret = private_file::secret(&path.join(SECRET), || Ok(BASE64_URL_SAFE_NO_PAD.encode(random::<48>()?)))?;
        Ok(Self { path, secret, _lock: lock })
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
        private_file::write(&self.path.join(CHAT), &serde_json::to_string_pretty(chat)?)
    }

    /// Writes a settings file into the folder and returns its path.
    pub(super) fn write_settings(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        private_file::write(&path, text)?;
        Ok(path)
    }

    /// Records the running services for the next launcher, in case this one is killed.
    pub(super) fn remember<'a>(&self, services: impl IntoIterator<Item = (&'a str, u32)>) -> Result<()> {
        let lines: Vec<String> = services.into_iter().map(|(name, pid)| format!("{name} {pid}")).collect();
        private_file::write(&self.path.join(SERVICES), &lines.join("\n"))
    }

    /// Removes the records of the services after they have ended.
    pub(super) fn forget(&self) {
        for name in [SERVICES, CHAT] {
            if let Err(error) = std::fs::remove_file(self.path.join(name))
                && error.kind() != std::io::ErrorKind::NotFound
            {
                eprintln!("note: cannot remove {name} from {}: {error}", self.path.display());
            }
        }
    }
}

/// Creates the folder for its owner only. Returns its absolute path.
fn create(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    if path.exists() && !path.is_dir() {
        bail!("{shown} is not a folder: {OTHER}");
    }
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.with_context(|| format!("cannot create the data folder {shown}: {OTHER}"))?;
    path.canonicalize().with_context(|| format!("cannot open the data folder {shown}: {OTHER}"))
}

/// Marks an empty folder as a data folder. Rejects a folder with other files, and one of another layout.
fn check_layout(path: &Path) -> Result<()> {
    let (shown, mark) = (path.display(), path.join(MARK));
    match std::fs::read_to_string(&mark) {
        Ok(layout) if layout.trim() == LAYOUT => Ok(()),
        Ok(layout) => bail!(
            "another version of the launcher created {shown} (layout {}): {OTHER}, or delete the folder",
            layout.trim()
        ),
        Err(_) if std::fs::read_dir(path)?.next().is_some() => {
            bail!("{shown} contains other files and is not a data folder of chatbox: {OTHER}")
        }
        Err(_) => private_file::write(&mark, LAYOUT)
            .with_context(|| format!("cannot write to the data folder {shown}: {OTHER}")),
    }
}

/// Takes the lock of the folder. Dropping the file releases the lock.
fn lock(path: &Path) -> Result<File> {
    let shown = path.display();
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let lock =
        options.open(path.join("lock")).with_context(|| format!("cannot write to the data folder {shown}: {OTHER}"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!("another `cargo xtask dev` is running on {shown}: stop it, or {OTHER}")
        }
        Err(TryLockError::Error(error)) => Err(error).context(format!("cannot lock {shown}: {OTHER}")),
    }
}

/// Rejects a folder whose services still run, because their launcher was killed.
fn check_services(path: &Path) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(path.join(SERVICES)) else { return Ok(()) };
    let alive: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        // The system reuses process ids, so the program is compared too.
        .filter(|(name, pid)| {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            program.file_name().is_some_and(|file| file.to_string_lossy().trim_end_matches(" (deleted)") == *name)
        })
        .map(|(_, pid)| pid)
        .collect();
    let pids = alive.join(" ");
    ensure!(
        alive.is_empty(),
        "services of an earlier launcher still use {}: stop them with `kill {pids}`",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn rejection(path: &Path) -> String {
        let error = Folder::open(path)
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_else(|| panic!("the folder was accepted"));
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_created_once_and_for_their_owner_only() {
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
    fn a_second_launcher_is_rejected() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(parent.path()).unwrap();
        assert!(rejection(parent.path()).contains("another `cargo xtask dev` is running"));
        drop(folder);
        assert!(Folder::open(parent.path()).is_ok());
    }

    #[test]
    fn other_folders_are_rejected_and_stay_unchanged() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(rejection(&file).contains("not a folder"));
        assert!(rejection(parent.path()).contains("contains other files"));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
        assert!(rejection(Path::new("/proc/chatbox")).contains("cannot create"));
    }

    #[test]
    fn another_layout_is_rejected() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join(MARK), "0").unwrap();
        assert!(rejection(parent.path()).contains("another version"));
    }

    #[test]
    fn a_database_without_its_keyring_gets_no_new_keyring() {
        let parent = tempfile::tempdir().unwrap();
        drop(Folder::open(parent.path()).unwrap());
        std::fs::write(parent.path().join(DATABASE), "").unwrap();
        std::fs::remove_file(parent.path().join(KEYRING)).unwrap();
        assert!(rejection(parent.path()).contains("no keyring"));
        assert!(!parent.path().join(KEYRING).exists());
    }

    #[test]
    fn running_services_are_named_and_other_programs_with_their_pids_are_not() {
        let parent = tempfile::tempdir().unwrap();
        let me = std::process::id();
        let program = std::env::current_exe().unwrap();
        let folder = Folder::open(parent.path()).unwrap();
        folder.remember([(program.file_name().unwrap().to_str().unwrap(), me)]).unwrap();
        drop(folder);
        assert!(rejection(parent.path()).contains(&format!("kill {me}")));
        private_file::write(&parent.path().join(SERVICES), &format!("brain {me}\nbrain 4000000000")).unwrap();
        assert!(Folder::open(parent.path()).is_ok());
    }

    #[test]
    fn the_chat_client_is_told_to_start_the_launcher_first() {
        let parent = tempfile::tempdir().unwrap();
        let error = format!("{:#}", ChatFile::read(parent.path()).err().unwrap());
        assert!(error.contains("cargo xtask dev"), "{error}");
    }
}
