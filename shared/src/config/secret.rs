//! Secrets in files. An error names the file, never its contents.

use std::fmt;
use std::path::Path;

use secrecy::SecretString;
use toml::{Table, Value};

use super::errors::ConfigErrors;
use super::keys::{env_name, get, set};

/// Larger files are refused: a secret is far smaller.
const MAX_SECRET_BYTES: u64 = 1 << 20;

/// Why a secret could not be read from its file. Displays with the path.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct SecretFileError {
    path: String,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    #[error("is not UTF-8 text")]
    NotText,
    #[error("is empty")]
    Empty,
    #[error("is larger than 1 MiB")]
    TooLarge,
}

/// Reads a secret from a file. One line ending at the end of the file is not part of the secret: editors and `echo` add it.
///
/// # Errors
/// Where the file cannot be read, is empty, is not text, or is larger than 1 MiB.
pub fn read_secret_file(path: &Path) -> Result<SecretString, SecretFileError> {
    match read(path) {
        Ok(secret) => Ok(SecretString::from(secret)),
        Err(reason) => Err(SecretFileError { path: Shown(path).to_string(), reason }),
    }
}

fn read(path: &Path) -> Result<String, Reason> {
    let size = std::fs::metadata(path).map_err(|error| Reason::Unreadable(error.kind()))?.len();
    if size > MAX_SECRET_BYTES {
        return Err(Reason::TooLarge);
    }
    let bytes = std::fs::read(path).map_err(|error| Reason::Unreadable(error.kind()))?;
    let mut text = String::from_utf8(bytes).map_err(|_| Reason::NotText)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err(Reason::Empty) } else { Ok(text) }
}

/// A path in an error. A value that is neither an absolute path nor in a folder that exists is not shown: it may be a secret
/// that was set where its file belongs.
struct Shown<'a>(&'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.0.parent().filter(|folder| !folder.as_os_str().is_empty());
        if self.0.is_absolute() || self.0.is_file() || folder.is_some_and(Path::is_dir) {
            self.0.display().fmt(f)
        } else {
            f.write_str("the file (its name is not shown, because it could be a secret; use an absolute path)")
        }
    }
}

/// Puts the contents of every `key_file` at `key`. A key with both a value and a file is an error.
pub(super) fn resolve(tree: &mut Table, secrets: &[&str], errors: &mut ConfigErrors) {
    for key in secrets {
        let file_key = format!("{key}_file");
        let path = match get(tree, &file_key) {
            Some(Value::String(path)) if !path.is_empty() => path.clone(),
            _ => continue,
        };
        if get(tree, key).is_some() {
            errors.add(file_key, format!("{} is set too; set only one of them", env_name(key)));
            continue;
        }
        let path = Path::new(&path);
        match read(path) {
            Ok(secret) => set(tree, key, Value::String(secret)),
            Err(reason) => errors.add(file_key, SecretFileError { path: Shown(path).to_string(), reason }),
        }
    }
}
